//! Random changes, made to an image and to a model of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firebrick_ext4::edit::{Editor, Node as SpecialNode};
use firebrick_ext4::geometry::BlockNumber;
use firebrick_ext4::read::FileType;
use firebrick_ext4::{BlockSink, Options, plan, write};
use firebrick_tree::{DeviceKind, LayerIndex, MergeOptions, Metadata, Timestamp, Tree, Xattrs};

use crate::image::Image;
use crate::model::{Model, Node, edit};

/// A generator of its own, so that a seed means the same everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }
}

/// What an image can keep.
#[derive(Clone, Copy)]
struct Abilities {
    block: usize,
    /// Whether times have nanoseconds, which inodes of 128 bytes do not.
    nanoseconds: bool,
}

struct Session<'a> {
    editor: Editor<File>,
    model: &'a mut Model,
    dice: &'a mut Dice,
    abilities: Abilities,
}

impl Session<'_> {
    fn paths(&self, wanted: impl Fn(&Node) -> bool) -> Vec<Vec<u8>> {
        let paths = self.model.paths.iter();
        paths
            .filter(|(_, number)| wanted(&self.model.nodes[number]))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// A path in a folder that is there, sometimes one that is taken.
    fn spot(&mut self) -> Vec<u8> {
        let folders = self.paths(|node| node.file_type == FileType::Directory);
        let mut path = self.dice.pick(&folders).clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let len = [1, 3, 8, 30, 255][self.dice.roll(5) as usize];
        let name = format!("{:0len$}", self.dice.roll(40));
        path.extend_from_slice(name.as_bytes());
        if self.dice.roll(6) == 0 && len < 255 {
            path.push(0xe9);
        }
        path
    }

    fn meta(&mut self) -> Metadata {
        Metadata {
            mode: self.dice.roll(0o10000) as u16,
            uid: self.dice.roll(100_000) as u32,
            gid: self.dice.roll(100_000) as u32,
            mtime: self.time(),
            xattrs: if self.dice.roll(4) == 0 {
                self.xattrs()
            } else {
                Xattrs::new()
            },
        }
    }

    fn time(&mut self) -> Timestamp {
        Timestamp {
            seconds: 1_000_000_000 + self.dice.roll(700_000_000) as i64,
            nanoseconds: match self.abilities.nanoseconds {
                true => self.dice.roll(1_000_000_000) as u32,
                false => 0,
            },
        }
    }

    fn xattrs(&mut self) -> Xattrs {
        let mut xattrs = Xattrs::new();
        for _ in 0..self.dice.roll(3) + 1 {
            let name = format!("user.{}", self.dice.roll(5));
            let len = [0, 5, 40, 200][self.dice.roll(4) as usize];
            xattrs.insert(name.into_bytes().into(), vec![b'v'; len].into());
        }
        xattrs
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.dice.roll(6) {
            0 => 0,
            1 => self.dice.roll(100),
            2 => self.dice.roll(5000),
            3 => self.dice.roll(100_000),
            4 => 4096 * self.dice.roll(5),
            _ => self.dice.roll(900_000),
        };
        let byte = self.dice.roll(256) as u8;
        let mut bytes: Vec<u8> = (0..len).map(|n| byte.wrapping_add((n / 7) as u8)).collect();
        if self.dice.roll(3) == 0 {
            // Holes in front, in the middle, or everywhere.
            let hole = (self.dice.roll(4) as usize) << 18;
            let end = bytes.len().min(hole + (1 << 18));
            bytes[hole.min(end)..end].fill(0);
        }
        bytes
    }

    /// Notes something new.
    fn put(&mut self, path: &[u8], file_type: FileType, meta: &Metadata, content: &[u8]) {
        let node = Node {
            file_type,
            mode: if file_type == FileType::Symlink {
                0o777
            } else {
                meta.mode
            },
            owner: (meta.uid, meta.gid),
            mtime: meta.mtime,
            xattrs: meta.xattrs.clone(),
            content: content.to_vec(),
            device: None,
        };
        self.model.remove(path);
        self.model.insert(path, node);
    }

    fn is_folder(&self, path: &[u8]) -> bool {
        self.model.paths.contains_key(path) && self.model.node(path).file_type == FileType::Directory
    }

    /// One change; `false` where the dice asked for what cannot be.
    fn step(&mut self) {
        let path = self.spot();
        let meta = self.meta();
        let taken_by_folder = self.is_folder(&path);
        match self.dice.roll(14) {
            0..4 => {
                let bytes = self.bytes();
                let written = self
                    .editor
                    .write_file(&path, &meta, bytes.len() as u64, &mut bytes.as_slice());
                assert_eq!(written.is_ok(), !taken_by_folder, "{written:?}");
                if !taken_by_folder {
                    self.put(&path, FileType::Regular, &meta, &bytes);
                }
            }
            4 | 5 => {
                let there = self.model.paths.contains_key(&path);
                let made = self.editor.make_directory(&path, &meta);
                assert_eq!(made.is_ok(), !there, "{made:?}");
                if !there {
                    self.put(&path, FileType::Directory, &meta, b"");
                }
            }
            6 => {
                let len = [1, 59, 60, 200, self.abilities.block.min(4096) - 1][self.dice.roll(5) as usize];
                let target = vec![b'x'; len];
                let made = self.editor.make_symlink(&path, &target, &meta);
                assert_eq!(made.is_ok(), !taken_by_folder, "{made:?}");
                if !taken_by_folder {
                    self.put(&path, FileType::Symlink, &meta, &target);
                }
            }
            7 => self.special(&path, &meta, taken_by_folder),
            8 => self.hardlink(&path, taken_by_folder),
            9 => self.rename(&path),
            10 | 11 => {
                let all = self.paths(|_| true);
                let path = self.dice.pick(&all).clone();
                let removed = self.editor.remove(&path);
                assert_eq!(removed.is_ok(), !path.is_empty(), "{removed:?}");
                if !path.is_empty() {
                    self.model.remove(&path);
                }
            }
            12 => self.attributes(&meta),
            _ => self.many(&meta),
        }
    }

    fn special(&mut self, path: &[u8], meta: &Metadata, taken_by_folder: bool) {
        let (major, minor) = *self.dice.pick(&[(1, 3), (259, 70_000), (4095, 1_048_575)]);
        let device = |kind| SpecialNode::Device { kind, major, minor };
        let kinds = [
            (SpecialNode::Fifo, FileType::Fifo),
            (SpecialNode::Socket, FileType::Socket),
            (device(DeviceKind::Char), FileType::CharDevice),
            (device(DeviceKind::Block), FileType::BlockDevice),
        ];
        let (node, file_type) = *self.dice.pick(&kinds);
        let made = self.editor.make_node(path, node, meta);
        assert_eq!(made.is_ok(), !taken_by_folder, "{made:?}");
        if !taken_by_folder {
            self.put(path, file_type, meta, b"");
            let is_device = matches!(node, SpecialNode::Device { .. });
            self.model.node_mut(path).device = is_device.then_some((major, minor));
        }
    }

    fn hardlink(&mut self, path: &[u8], taken_by_folder: bool) {
        let others = self.paths(|node| node.file_type != FileType::Directory);
        if others.is_empty() {
            return;
        }
        let old = self.dice.pick(&others).clone();
        let made = self.editor.make_hardlink(&old, path);
        assert_eq!(made.is_ok(), !taken_by_folder, "{made:?}");
        if !taken_by_folder {
            let number = self.model.paths[&old];
            self.model.paths.insert(path.to_vec(), number);
        }
    }

    fn rename(&mut self, to: &[u8]) {
        let all = self.paths(|_| true);
        let from = self.dice.pick(&all).clone();
        let same = self.model.paths.get(&from) == self.model.paths.get(to);
        let below = [&from, &b"/"[..]].concat();
        let possible = !from.is_empty() && (same || !(self.is_folder(to) || to.starts_with(&below)));
        let moved = self.editor.rename(&from, to);
        assert_eq!(moved.is_ok(), possible, "{moved:?}");
        if possible && !same {
            self.model.remove(to);
            self.model.rename(&from, to);
        }
    }

    fn attributes(&mut self, meta: &Metadata) {
        let all = self.paths(|node| node.file_type != FileType::Symlink);
        let path = self.dice.pick(&all).clone();
        self.editor.set_mode(&path, meta.mode).unwrap();
        self.editor.set_owner(&path, meta.uid, meta.gid).unwrap();
        self.editor.set_times(&path, meta.mtime).unwrap();
        self.editor.set_xattrs(&path, &meta.xattrs).unwrap();
        let node = self.model.node_mut(&path);
        node.mode = meta.mode;
        node.owner = (meta.uid, meta.gid);
        node.mtime = meta.mtime;
        node.xattrs.clone_from(&meta.xattrs);
    }

    /// Many names in one folder, so that it gets an index, and perhaps loses it again.
    fn many(&mut self, meta: &Metadata) {
        let folders = self.paths(|node| node.file_type == FileType::Directory);
        let folder = self.dice.pick(&folders).clone();
        for n in 0..self.dice.roll(400) {
            let name = format!("many-{:0110}", n * 3);
            let path = [&folder[..], b"/", name.as_bytes()].concat();
            let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
            if self.is_folder(&path) {
                continue;
            }
            self.editor.write_file(&path, meta, 1, &mut &b"m"[..]).unwrap();
            self.put(&path, FileType::Regular, meta, b"m");
        }
    }
}

/// A folder with files of many shapes, which `mke2fs -d` puts into an image.
fn source(at: &Path) {
    use std::os::unix::fs::{FileExt as _, symlink};
    std::fs::create_dir_all(at.join("dir/sub")).unwrap();
    for n in 0..200 {
        std::fs::write(at.join(format!("dir/file-{n:040}")), vec![b'x'; n * 50]).unwrap();
    }
    std::fs::write(at.join("large"), vec![b'l'; 700_000]).unwrap();
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    sparse.write_all_at(b"middle", 2_000_000).unwrap();
    std::fs::hard_link(at.join("large"), at.join("dir/sub/large2")).unwrap();
    symlink("dir/sub", at.join("link")).unwrap();
    symlink("t".repeat(200), at.join("long")).unwrap();
}

/// Makes rounds of changes to an image, each finished and judged.
fn storm(image: &Image, abilities: Abilities, seed: u64, rounds: usize, steps: usize) {
    let mut dice = Dice(seed);
    let mut model = Model::open(&image.path());
    for round in 0..rounds {
        let mut session = Session {
            editor: edit(&image.path()),
            model: &mut model,
            dice: &mut dice,
            abilities,
        };
        for _ in 0..steps {
            session.step();
        }
        session.editor.finish().unwrap();
        image.check();
        model.compare(&image.path());
        assert!(!model.paths.is_empty(), "round {round}");
    }
}

fn storms(arguments: &str, abilities: Abilities) {
    let folder = tempfile::tempdir().unwrap();
    source(folder.path());
    for seed in 1..4 {
        let image = Image::make(arguments, "96M", Some(folder.path()));
        let block = image.open().summary().block_size as usize;
        storm(
            &image,
            Abilities { block, ..abilities },
            seed * 0x9e37_79b9,
            4,
            60,
        );
    }
}

const FULL: Abilities = Abilities {
    block: 4096,
    nanoseconds: true,
};

#[test]
fn ext4_as_mke2fs_makes_it() {
    storms("-t ext4 -b 4096 -N 8000", FULL);
}

#[test]
fn ext4_with_small_blocks_and_groups() {
    storms("-t ext4 -b 1024 -N 8000 -g 4096", FULL);
    storms("-t ext4 -b 2048 -N 8000", FULL);
}

#[test]
fn ext4_with_old_checksums_or_none() {
    storms(
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg -N 8000 -g 4096",
        FULL,
    );
    storms("-t ext4 -O ^metadata_csum,^uninit_bg,^64bit -N 8000", FULL);
    storms("-t ext4 -O ^64bit,^flex_bg,^resize_inode -N 8000 -g 8192", FULL);
}

#[test]
fn ext4_with_other_features() {
    storms(
        "-t ext4 -O metadata_csum_seed,orphan_file,fast_commit -N 8000",
        FULL,
    );
    storms(
        "-t ext4 -O ^has_journal,meta_bg,^resize_inode -N 8000 -g 2048",
        FULL,
    );
    storms("-t ext4 -O sparse_super2,^dir_nlink,large_dir -N 8000", FULL);
    storms("-t ext4 -O ^dir_index,^huge_file,^filetype -N 8000", FULL);
}

#[test]
fn small_inodes() {
    let old = Abilities {
        nanoseconds: false,
        ..FULL
    };
    storms("-t ext4 -I 128 -O ^extra_isize -N 8000", old);
    storms("-t ext4 -I 512 -N 8000", FULL);
}

#[test]
fn ext2_and_ext3() {
    let old = Abilities {
        nanoseconds: false,
        ..FULL
    };
    storms("-t ext2 -I 128 -N 8000", old);
    storms("-t ext3 -N 8000", FULL);
    storms("-t ext2 -b 4096 -N 8000", FULL);
}

/// An image that firebrick makes, of nothing but free space.
fn own_image(options: &Options) -> Image {
    struct Sink(File);
    impl BlockSink for Sink {
        fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> std::io::Result<()> {
            self.0.write_all_at(bytes, start.0 * 4096)
        }
    }
    let image = Image::make("-t ext4", "8M", None);
    let tree = Tree::merge([LayerIndex::new(Vec::new())], &MergeOptions::default()).unwrap();
    let plan = plan(&tree, &[], options).unwrap();
    std::fs::remove_file(image.path()).unwrap();
    let file = File::create(image.path()).unwrap();
    file.set_len(plan.size_bytes()).unwrap();
    write(&plan, &tree, &mut Sink(file)).unwrap();
    image.check();
    image
}

#[test]
fn images_of_our_own() {
    let options = Options {
        identity: [7; 32],
        free: 200 << 20,
        ..Options::default()
    };
    for (journal, online_resize) in [(false, false), (true, true)] {
        let image = own_image(&Options {
            journal,
            online_resize,
            ..options.clone()
        });
        storm(&image, FULL, 99, 6, 80);
    }
}

/// The same changes give the same bytes.
#[test]
fn changes_are_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    source(folder.path());
    let first = Image::make("-t ext4 -N 8000", "64M", Some(folder.path()));
    let second = first.beside("copy");
    std::fs::copy(first.path(), &second).unwrap();
    let mut made = BTreeMap::new();
    for path in [first.path(), second] {
        let mut model = Model::open(&path);
        let mut session = Session {
            editor: edit(&path),
            model: &mut model,
            dice: &mut Dice(77),
            abilities: FULL,
        };
        for _ in 0..80 {
            session.step();
        }
        session.editor.finish().unwrap();
        made.insert(path.clone(), std::fs::read(&path).unwrap());
    }
    let mut images = made.into_values();
    assert!(images.next() == images.next());
}
