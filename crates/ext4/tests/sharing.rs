//! Images that share layers share blocks of metadata, too, and `e2fsck -fn` agrees with the numbers that stay free for it.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Command;

use firebrick_ext4::geometry::{BlockNumber, DataBlock};
use firebrick_ext4::{BlockSink, Options, Plan, Region, Size, plan, region_start, write};
use firebrick_tree::{
    Entry, EntryKind, FileData, LayerIndex, LayerPath, MergeOptions, Metadata, RegionIndex, Segment, Tree,
};

const BLOCK: usize = 4096;

struct Blocks(File);

impl BlockSink for Blocks {
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, start.0 * BLOCK as u64)
    }
}

/// Layers, each with as many blocks of file contents as it has files.
#[derive(Clone, Default)]
struct Layers {
    indices: Vec<LayerIndex>,
    regions: Vec<Region>,
}

impl Layers {
    /// One layer more: files of a block each, and names that it hides.
    fn with(&self, files: impl IntoIterator<Item = String>, hidden: &[&str]) -> Layers {
        let mut layers = self.clone();
        let entry = |name: &str, kind| {
            let path = LayerPath::parse(name.as_bytes()).unwrap();
            Entry::new(path, Metadata::default(), kind)
        };
        let region = RegionIndex(u32::try_from(layers.regions.len()).unwrap());
        let mut entries: Vec<Entry> = Vec::new();
        for (name, block) in files.into_iter().zip(0_u64..) {
            let segments = vec![Segment {
                file_offset: 0,
                region,
                region_offset: block * BLOCK as u64,
                len: 100,
            }];
            entries.push(entry(&name, EntryKind::File(FileData { size: 100, segments })));
        }
        let end = layers.regions.last().map_or(0, |last| last.start.0 + last.blocks);
        layers.regions.push(Region {
            start: region_start(DataBlock(end)),
            blocks: entries.len() as u64,
        });
        entries.extend(hidden.iter().map(|name| entry(name, EntryKind::Whiteout)));
        layers.indices.push(LayerIndex::new(entries));
        layers
    }

    /// The image, judged. Contents of files stay zeros.
    fn image(&self, options: &Options) -> (Plan, tempfile::NamedTempFile) {
        let tree = Tree::merge(self.indices.iter().cloned(), &MergeOptions::default()).unwrap();
        let plan = plan(&tree, &self.regions, options).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(plan.size_bytes()).unwrap();
        write(&plan, &tree, &mut Blocks(file.reopen().unwrap())).unwrap();
        e2fsck(&file);
        (plan, file)
    }
}

fn e2fsck(file: &tempfile::NamedTempFile) {
    let output = Command::new("e2fsck").arg("-fn").arg(file.path()).output();
    let output = output.expect("e2fsck is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

fn options(identity: u8) -> Options {
    Options {
        identity: [identity; 32],
        free: 1 << 20,
        ..Options::default()
    }
}

fn blocks(file: &tempfile::NamedTempFile) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file.path()).unwrap();
    bytes.chunks(BLOCK).map(<[u8]>::to_vec).collect()
}

/// 40 folders of 50 files, one of 600 (which has an index), and an app.
fn base() -> Layers {
    let many = (0..40).flat_map(|folder| (0..50).map(move |n| format!("usr/{folder}/file-{n:03}")));
    let indexed = (0..600).map(|n| format!("var/files/some-longer-name-{n:04}"));
    let app = (0..400).map(|n| format!("app/{}/{n}", n % 20));
    Layers::default().with(many.chain(indexed), &[]).with(app, &[])
}

#[test]
fn a_small_layer_more_leaves_nearly_all_metadata_as_it_was() {
    let above = ["usr/3/file-007", "new/one", "new/two"].map(str::to_owned);
    let more = base().with(above, &["usr/5/file-001", "app/7/7"]);
    for (journal, online_resize) in [(false, false), (true, true)] {
        let with = |identity| Options {
            journal,
            online_resize,
            ..options(identity)
        };
        let (_, before) = base().image(&with(1));
        let (_, after) = more.image(&with(2));
        let known: HashSet<Vec<u8>> = blocks(&before).into_iter().collect();
        let after = blocks(&after);
        let zeros = vec![0; BLOCK];
        let in_use = after.iter().filter(|block| **block != zeros).count();
        let new = after.iter().filter(|block| !known.contains(*block)).count();
        // Superblock, descriptors and bitmaps; the blocks of three folders and of their files' inodes; the inodes of 65
        // folders, which lie in blocks of 16. With a journal its first block and inode; backups; pointers to them.
        assert!(in_use > 250, "{in_use}");
        assert!(new <= 24, "{new} of {in_use}");
    }
}

#[test]
fn another_version_of_the_lowest_layer_leaves_the_inodes_above() {
    let table = |files: usize| {
        let below = (0..files).map(|n| format!("usr/{}/{n}", n % 20));
        let app = (0..400).map(|n| format!("app/{n}"));
        let (_, file) = Layers::default()
            .with(below, &[])
            .with(app, &[])
            .image(&options(files as u8));
        blocks(&file).into_iter().collect::<HashSet<_>>()
    };
    let (before, after) = (table(2500), table(2509));
    // 400 inodes above, and their folder.
    assert!(before.intersection(&after).count() >= 400 / 16 + 2);
}

#[test]
fn free_numbers_are_counted_whatever_is_hidden() {
    let names = |count: usize| (0..count).map(|n| format!("d{}/{n}", n % 7));
    let all: Vec<String> = names(3000).collect();
    for (hidden, size) in [
        (1, Size::Auto),
        (1400, Size::Auto),
        (2900, Size::Auto),
        (2900, Size::Bytes(1 << 30)),
        (1400, Size::Least),
    ] {
        let hidden_names: Vec<&str> = all[..hidden].iter().map(String::as_str).collect();
        let layers = Layers::default()
            .with(names(3000), &[])
            .with((0..50).map(|n| format!("top/{n}")), &hidden_names);
        let (plan, file) = layers.image(&Options { size, ..options(9) });
        let (inodes, used) = plan.inodes();
        // Root, ten reserved, eight folders.
        assert_eq!(used as usize, 11 + 8 + 3000 - hidden + 50);
        if size != Size::Bytes(1 << 30) {
            let numbers = 2 * used + 4 * 32;
            assert!(inodes <= numbers.max(used + 1024 + 16), "{inodes} for {used}");
        }
        // What it would give away is free: it stays right when it is in use.
        let said = Command::new("debugfs")
            .args(["-w", "-R", "write /dev/null one-more"])
            .arg(file.path())
            .output()
            .expect("debugfs is installed");
        assert!(said.status.success());
        e2fsck(&file);
    }
}

#[test]
fn a_uuid_reaches_no_checksum() {
    let (_, one) = base().image(&options(1));
    let (_, other) = base().image(&options(2));
    let (one, mut changed) = (blocks(&one), blocks(&other));
    assert_ne!(one[0], changed[0]);
    changed[0].clone_from(&one[0]);
    assert!(one == changed);
    // And tune2fs changes it without writing anything else.
    let said = Command::new("tune2fs")
        .args(["-U", "01234567-89ab-4def-8123-456789abcdef"])
        .arg(other.path())
        .output()
        .expect("tune2fs is installed");
    assert!(said.status.success(), "{said:?}");
    e2fsck(&other);
    let mut changed = blocks(&other);
    assert!(
        changed[0]
            .windows(4)
            .any(|bytes| bytes == [0x01, 0x23, 0x45, 0x67])
    );
    changed[0].clone_from(&one[0]);
    assert!(one == changed);
}
