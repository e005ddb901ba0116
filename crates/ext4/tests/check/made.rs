//! The images that are checked: small ones by `mke2fs` and by us, with something of each kind in them.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::Command;

use firebrick_ext4::geometry::{BlockNumber, DataBlock};
use firebrick_ext4::{BlockSink, Options, Region, plan, write};
use firebrick_tree::{
    Entry, EntryKind, FileData, LayerIndex, LayerPath, MergeOptions, Metadata, RegionIndex, Segment, Tree,
};

use crate::image::{Image, tool};

/// What file contents are filled with, by which blocks of content are known.
pub(crate) const FILLING: u8 = 0xaa;

/// UUID and hash seed of images by `mke2fs`.
const ID: &str = "5b1d3bd6-0bd1-4b50-8f2b-f5e3bdf5ac8c";

/// Names in the folder that has an index.
const NAMES: usize = 200;

/// A folder on the host with what the images hold.
pub(crate) fn source() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("dir/sub")).unwrap();
    std::fs::create_dir_all(at("dir/other/third")).unwrap();
    std::fs::write(at("file"), vec![FILLING; 30_000]).unwrap();
    std::fs::hard_link(at("file"), at("dir/again")).unwrap();
    symlink("short", at("short")).unwrap();
    symlink("long/".repeat(30), at("long")).unwrap();
    let mut sparse = std::fs::File::create(at("sparse")).unwrap();
    for piece in 0..30 {
        sparse.seek(SeekFrom::Start(piece * 20_000)).unwrap();
        sparse.write_all(&[FILLING; 100]).unwrap();
    }
    for n in 0..NAMES {
        std::fs::write(at(&format!("dir/sub/{n:050}")), "").unwrap();
    }
    let made = Command::new("mkfifo").arg(at("fifo")).status().unwrap();
    assert!(made.success());
    folder
}

/// An image by `mke2fs`, with attributes and indexes.
pub(crate) fn foreign(arguments: &str, source: &Path) -> Image {
    // The same hashes in every run.
    let ids = format!("{arguments} -U {ID} -E hash_seed={ID}");
    let image = Image::make(&ids, "4M", Some(source));
    image.alter(&[
        "ea_set /file user.a aaaaaaaaaaa",
        "ea_set /fifo user.b bbbbbb",
        &format!("ea_set /dir user.c {}", "c".repeat(300)),
        "set_inode_field /fifo mode 010644",
    ]);
    image.index_directories();
    image
}

struct Blocks(std::fs::File);

impl BlockSink for Blocks {
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, start.0 * 4096)
    }
}

/// An image by us, of the same names.
pub(crate) fn ours() -> Image {
    let path = |path: &str| LayerPath::parse(path.as_bytes()).unwrap();
    let file = |size: u64, segments: Vec<(u64, u64, u64)>| {
        let segments = segments
            .into_iter()
            .map(|(file_offset, region_offset, len)| Segment {
                file_offset,
                region: RegionIndex(0),
                region_offset,
                len,
            })
            .collect();
        EntryKind::File(FileData { size, segments })
    };
    let pieces = (0..30).map(|piece| (piece * 20_480, 32_768 + piece * 4096, 100));
    let mut kinds = vec![
        ("dir".to_owned(), EntryKind::Directory),
        ("dir/sub".to_owned(), EntryKind::Directory),
        ("dir/other".to_owned(), EntryKind::Directory),
        ("dir/other/third".to_owned(), EntryKind::Directory),
        ("file".to_owned(), file(30_000, vec![(0, 0, 30_000)])),
        ("dir/again".to_owned(), EntryKind::Hardlink(path("file"))),
        ("short".to_owned(), EntryKind::Symlink(b"short"[..].into())),
        (
            "long".to_owned(),
            EntryKind::Symlink("long/".repeat(30).into_bytes().into()),
        ),
        ("sparse".to_owned(), file(29 * 20_480 + 100, pieces.collect())),
        ("fifo".to_owned(), EntryKind::Fifo),
    ];
    kinds.extend((0..NAMES).map(|n| (format!("dir/sub/{n:050}"), file(0, vec![]))));
    let entries = kinds.into_iter().map(|(name, kind)| {
        let mut meta = Metadata::default();
        let len = if name == "dir" { 300 } else { 10 };
        if matches!(name.as_str(), "dir" | "file" | "fifo") {
            meta.xattrs.insert(b"user.a"[..].into(), vec![b'a'; len].into());
        }
        Entry::new(path(&name), meta, kind)
    });
    let tree = Tree::merge(
        [LayerIndex::new(entries.collect::<Vec<_>>())],
        &MergeOptions::default(),
    )
    .unwrap();
    let regions = [Region {
        start: DataBlock(0),
        blocks: 38,
    }];
    let options = Options {
        identity: [7; 32],
        free: 1 << 20,
        ..Options::default()
    };
    let plan = plan(&tree, &regions, &options).unwrap();
    let image = Image::empty();
    let file = std::fs::File::create(image.path()).unwrap();
    file.set_len(plan.size_bytes()).unwrap();
    file.write_all_at(&vec![FILLING; 38 * 4096], region_start())
        .unwrap();
    write(&plan, &tree, &mut Blocks(file)).unwrap();
    image.check();
    image
}

/// Where data block 0 lies, in bytes.
fn region_start() -> u64 {
    let layout = firebrick_ext4::geometry::Layout { online_resize: false };
    layout.runs(DataBlock(0), 1)[0].start.0 * 4096
}

/// Exit code of `e2fsck -fn`, and what it said.
pub(crate) fn e2fsck(path: &Path) -> (i32, String) {
    let output = tool("timeout")
        .args(["60", "e2fsck", "-fn"])
        .arg(path)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code().unwrap_or(-1), said)
}
