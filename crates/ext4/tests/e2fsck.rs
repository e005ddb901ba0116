//! Images of every shape that the writer knows pass `e2fsck -fn`.

use std::io;
use std::os::unix::fs::FileExt;
use std::process::Command;

use firebrick_ext4::geometry::{BlockNumber, DataBlock, Layout};
use firebrick_ext4::{BlockSink, Options, Plan, Region, Size, plan, write};
use firebrick_tree::{
    DeviceKind, Entry, EntryKind, FileData, LayerIndex, LayerPath, MergeOptions, Metadata, RegionIndex,
    Segment, Timestamp, Tree,
};

struct ImageFile(std::fs::File);

impl BlockSink for ImageFile {
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(bytes.len() % 4096, 0);
        self.0.write_all_at(bytes, start.0 * 4096)
    }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let meta = Metadata {
        mtime: Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        },
        ..Metadata::default()
    };
    Entry::new(LayerPath::parse(path.as_bytes()).unwrap(), meta, kind)
}

/// A file of one segment, `at` blocks into region 0.
fn file(path: &str, at: u64, len: u64) -> Entry {
    let segment = Segment {
        file_offset: 0,
        region: RegionIndex(0),
        region_offset: at * 4096,
        len,
    };
    entry(
        path,
        EntryKind::File(FileData {
            size: len,
            segments: if len == 0 { vec![] } else { vec![segment] },
        }),
    )
}

/// Plans and writes an image of one region, and lets `e2fsck` judge it.
fn image(entries: Vec<Entry>, region_blocks: u64, options: &Options) -> (Plan, tempfile::NamedTempFile) {
    let tree = Tree::merge([LayerIndex::new(entries)], &MergeOptions::default()).unwrap();
    let regions = [Region {
        start: DataBlock(0),
        blocks: region_blocks,
    }];
    let plan = plan(&tree, &regions, options).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(plan.size_bytes()).unwrap();
    write(&plan, &tree, &mut ImageFile(file.reopen().unwrap())).unwrap();
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(file.path())
        .output()
        .expect("e2fsck is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        plan.dump(&tree)
    );
    (plan, file)
}

fn options() -> Options {
    Options {
        identity: [7; 32],
        free: 1 << 20,
        label: b"root".to_vec(),
        ..Options::default()
    }
}

fn small_tree() -> Vec<Entry> {
    let long = vec![b't'; 60];
    vec![
        entry("dir/sub", EntryKind::Directory),
        file("dir/empty", 0, 0),
        file("dir/file", 0, 5000),
        entry(
            "dir/hard",
            EntryKind::Hardlink(LayerPath::parse(b"dir/file").unwrap()),
        ),
        entry("short", EntryKind::Symlink(b"dir"[..].into())),
        entry("just", EntryKind::Symlink(vec![b't'; 59].into())),
        entry("long", EntryKind::Symlink(long.into())),
        entry(
            "null",
            EntryKind::Device {
                kind: DeviceKind::Char,
                major: 1,
                minor: 3,
            },
        ),
        entry(
            "disk",
            EntryKind::Device {
                kind: DeviceKind::Block,
                major: 259,
                minor: 70_000,
            },
        ),
        entry("pipe", EntryKind::Fifo),
        entry("sock", EntryKind::Socket),
    ]
}

#[test]
fn empty_and_small_trees() {
    image(vec![], 0, &Options::default());
    image(small_tree(), 2, &options());
    image(
        vec![
            entry("lost+found", EntryKind::Directory),
            entry("lost+found/x", EntryKind::Fifo),
        ],
        0,
        &options(),
    );
}

#[test]
fn sizes_from_tiny_to_many_groups() {
    for mib in [4, 127, 128, 129, 257, 1000, 5000] {
        for online_resize in [false, true] {
            let (plan, _file) = image(
                small_tree(),
                2,
                &Options {
                    size: Size::Bytes(mib << 20),
                    online_resize,
                    ..options()
                },
            );
            assert!(plan.size_bytes() <= mib << 20 && plan.size_bytes() + (2 << 20) > mib << 20);
        }
    }
}

#[test]
fn journal_of_every_step() {
    for (mib, online_resize) in [(64, false), (200, true), (1500, false), (2500, true)] {
        image(
            small_tree(),
            2,
            &Options {
                size: Size::Bytes(mib << 20),
                journal: true,
                online_resize,
                ..options()
            },
        );
    }
    let (_, file) = image(
        small_tree(),
        2,
        &Options {
            journal: true,
            ..options()
        },
    );
    let output = Command::new("dumpe2fs").arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("Journal start:            0") && said.contains("has_journal"),
        "{said}"
    );
}

#[test]
fn directories_with_an_index_of_one_and_two_levels() {
    for (count, width) in [(50_000, 12), (20_000, 250)] {
        let entries = (0..count)
            .map(|n| entry(&format!("dir/{n:0width$}"), EntryKind::Fifo))
            .collect();
        image(entries, 0, &options());
    }
}

#[test]
fn more_subdirectories_than_links_can_count() {
    let entries = (0..65_100)
        .map(|n| entry(&format!("dir/{n}"), EntryKind::Directory))
        .collect();
    image(entries, 0, &options());
}

#[test]
fn a_file_with_thousands_of_extents() {
    for holes in [5_u64, 400, 3000] {
        let segments = (0..holes)
            .map(|n| Segment {
                file_offset: n * 8192,
                region: RegionIndex(0),
                region_offset: n * 4096,
                len: 4096,
            })
            .collect();
        let data = FileData {
            size: holes * 8192,
            segments,
        };
        image(vec![entry("holes", EntryKind::File(data))], holes, &options());
    }
}

#[test]
fn a_file_over_several_groups_steps_over_backups() {
    let blocks = 100_000;
    for online_resize in [false, true] {
        image(
            vec![file("large", 0, blocks * 4096 - 1)],
            blocks,
            &Options {
                online_resize,
                ..options()
            },
        );
    }
    assert_eq!(Layout { online_resize: true }.runs(DataBlock(0), blocks).len(), 3);
}

#[test]
fn extended_attributes_in_inode_and_block() {
    let acl = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 232, 3, 0, 0],
    ]
    .concat();
    let acl = [
        &acl[..],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let acl = [&acl[..], &[32, 0, 4, 0, 255, 255, 255, 255]].concat();
    let mut file = file("file", 0, 0);
    for (name, value) in [
        ("security.capability", vec![1; 20]),
        ("system.posix_acl_access", acl),
        ("user.big", vec![2; 2000]),
        ("user.empty", vec![]),
        ("trusted.overlay.opaque", b"y".to_vec()),
    ] {
        file.meta.xattrs.insert(name.as_bytes().into(), value.into());
    }
    let (_, image) = image(vec![file], 0, &options());
    let output = Command::new("debugfs")
        .args(["-R", "ea_list /file"])
        .arg(image.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for name in [
        "security.capability (20)",
        "user.big (2000)",
        "user.empty (0)",
        "trusted.overlay.opaque (1)",
    ] {
        assert!(said.contains(name), "{name} in {said}");
    }
}

#[test]
fn many_inodes_and_few_blocks() {
    let entries = (0..100_000)
        .map(|n| entry(&format!("{}/{n}", n % 100), EntryKind::Fifo))
        .collect();
    let (plan, _file) = image(entries, 0, &Options { free: 0, ..options() });
    assert!(plan.inodes().0 >= 100_000 + 100);
}

#[test]
fn more_files_than_a_size_has_inodes_for_says_how_much_is_needed() {
    let files = (0..40_000).map(|n| file(&format!("f{n}"), 0, 0)).collect();
    let tree = Tree::merge([LayerIndex::new(files)], &MergeOptions::default()).unwrap();
    let of_size = |bytes| {
        plan(
            &tree,
            &[],
            &Options {
                size: Size::Bytes(bytes),
                ..options()
            },
        )
    };
    let Err(firebrick_ext4::PlanError::TooSmall { needed, .. }) = of_size(60 << 20) else {
        panic!("60 MiB are one group, which holds 32,768 inodes");
    };
    assert!(of_size(needed).is_ok());
}

#[test]
fn what_does_not_fit_says_how_much_is_needed() {
    let tree = Tree::merge(
        [LayerIndex::new(vec![file("f", 0, 4096 * 1000)])],
        &MergeOptions::default(),
    )
    .unwrap();
    let regions = [Region {
        start: DataBlock(0),
        blocks: 1000,
    }];
    let too_small = Options {
        size: Size::Bytes(4 << 20),
        ..options()
    };
    let Err(firebrick_ext4::PlanError::TooSmall { needed, size }) = plan(&tree, &regions, &too_small) else {
        panic!("1000 blocks and 1 MiB in front do not fit 4 MiB");
    };
    assert_eq!(size, 4 << 20);
    assert!(
        plan(
            &tree,
            &regions,
            &Options {
                size: Size::Bytes(needed),
                ..options()
            }
        )
        .is_ok()
    );
    assert!(
        plan(
            &tree,
            &regions,
            &Options {
                size: Size::Bytes(needed - 65536),
                ..options()
            }
        )
        .is_err()
    );
}

#[test]
fn hidden_blocks_are_named() {
    let tree = Tree::merge(
        [LayerIndex::new(vec![file("f", 2, 4096)])],
        &MergeOptions::default(),
    )
    .unwrap();
    let plan = plan(
        &tree,
        &[Region {
            start: DataBlock(0),
            blocks: 5,
        }],
        &options(),
    )
    .unwrap();
    let hidden: Vec<_> = plan.hidden().iter().map(|run| (run.start.0, run.count)).collect();
    assert_eq!(hidden, [(256, 2), (259, 2)]);
}
