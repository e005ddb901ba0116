//! Round trips through our own writer, and headers bent by hand.

use firebrick_tree::{Timestamp, Xattrs};

use super::*;
use crate::tar::{Writer, WriterEntry};

/// Keeps a region in memory.
#[derive(Default)]
struct Region(Vec<u8>);

impl RegionSink for Region {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        assert!(len < 4096);
        self.0.resize(self.0.len() + len, 0);
        Ok(())
    }
}

fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).unwrap()
}

fn scanned(tar: &[u8]) -> Result<(LayerIndex, Vec<u8>), ScanError> {
    scanned_within(tar, &Limits::default())
}

fn scanned_within(tar: &[u8], limits: &Limits) -> Result<(LayerIndex, Vec<u8>), ScanError> {
    let mut region = Region::default();
    // A tiny buffer, so that every structure is cut somewhere.
    let reader = std::io::BufReader::with_capacity(7, tar);
    let (index, summary) = scan(
        reader,
        RegionIndex(3),
        &mut region,
        limits,
        ScanSummary::default(),
    )?;
    assert_eq!(summary.tar_bytes, tar.len() as u64);
    assert_eq!(index.region_len, region.0.len() as u64);
    assert_eq!(index.region_len % BLOCK_LEN, 0);
    Ok((index, region.0))
}

fn tar(entries: &[(&str, Metadata, WriterEntry<'_>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, meta, entry) in entries {
        writer.entry(&path(name), meta, entry.clone()).unwrap();
    }
    writer.finish().unwrap()
}

fn file(content: &[u8]) -> Vec<u8> {
    tar(&[("f", Metadata::default(), WriterEntry::File(content))])
}

/// The content of a file that stands at the region's start.
fn one_segment(len: u64) -> FileData {
    let segment = Segment {
        file_offset: 0,
        region: RegionIndex(3),
        region_offset: 0,
        len,
    };
    FileData {
        size: len,
        segments: vec![segment],
    }
}

#[test]
fn everything_that_the_writer_writes_comes_back() {
    let xattrs = Xattrs::from([
        (b"user.a"[..].into(), b"\0\n="[..].into()),
        (b"user.b"[..].into(), b""[..].into()),
    ]);
    let meta = Metadata {
        mode: 0o4755,
        uid: 3_000_000_000,
        gid: 70_000,
        mtime: Timestamp {
            seconds: -3_000_000_000,
            nanoseconds: 1,
        },
        xattrs,
    };
    let long = "d/".repeat(80) + &"n".repeat(255);
    let target = vec![b't'; 4095];
    let link = path(&long);
    let plain = Metadata {
        mode: 0o1777,
        mtime: Timestamp {
            seconds: 5,
            nanoseconds: 999_999_999,
        },
        ..Metadata::default()
    };
    let device = |kind| WriterEntry::Device {
        kind,
        major: 0xfff,
        minor: 3_000_000,
    };
    let tar = tar(&[
        (long.as_str(), meta.clone(), WriterEntry::File(b"content")),
        ("", plain.clone(), WriterEntry::Directory),
        ("dir", plain.clone(), WriterEntry::Directory),
        ("dir/link", plain.clone(), WriterEntry::Symlink(&target)),
        ("dir/hard", meta.clone(), WriterEntry::Hardlink(&link)),
        ("dir/c", plain.clone(), device(DeviceKind::Char)),
        ("dir/b", plain.clone(), device(DeviceKind::Block)),
        ("dir/p", plain.clone(), WriterEntry::Fifo),
        ("dir/s", plain.clone(), WriterEntry::Socket),
    ]);
    let (index, region) = scanned(&tar).unwrap();
    let device = |kind| EntryKind::Device {
        kind,
        major: 0xfff,
        minor: 3_000_000,
    };
    let mut link_meta = plain.clone();
    link_meta.mode = 0o777;
    let expected = [
        Entry::new(link.clone(), meta.clone(), EntryKind::File(one_segment(7))),
        Entry::new(path(""), plain.clone(), EntryKind::Directory),
        Entry::new(path("dir"), plain.clone(), EntryKind::Directory),
        Entry::new(path("dir/link"), link_meta, EntryKind::Symlink(target.into())),
        Entry::new(path("dir/hard"), meta, EntryKind::Hardlink(link)),
        Entry::new(path("dir/c"), plain.clone(), device(DeviceKind::Char)),
        Entry::new(path("dir/b"), plain.clone(), device(DeviceKind::Block)),
        Entry::new(path("dir/p"), plain.clone(), EntryKind::Fifo),
        Entry::new(path("dir/s"), plain, EntryKind::Socket),
    ];
    assert_eq!(index.entries, expected);
    assert_eq!(region, [&b"content"[..], &[0; 4089]].concat());
}

#[test]
fn files_start_on_blocks_in_tar_order() {
    let plain = Metadata::default();
    let tar = tar(&[
        ("empty", plain.clone(), WriterEntry::File(b"")),
        ("one", plain.clone(), WriterEntry::File(&[1; 4097])),
        ("two", plain, WriterEntry::File(&[2; 4096])),
    ]);
    let (index, region) = scanned(&tar).unwrap();
    let places: Vec<_> = index
        .entries
        .iter()
        .map(|entry| match &entry.kind {
            EntryKind::File(data) => data
                .segments
                .iter()
                .map(|s| (s.region_offset, s.len))
                .collect::<Vec<_>>(),
            _ => unreachable!("only files were written"),
        })
        .collect();
    assert_eq!(places, [vec![], vec![(0, 4097)], vec![(8192, 4096)]]);
    assert_eq!(
        (region.len(), region[4096], region[4097], region[8192]),
        (12288, 1, 0, 2)
    );
}

#[test]
fn whiteouts_are_told_from_files() {
    let plain = Metadata::default();
    let names = ["a/.wh.b", "a/.wh..wh..opq", ".wh..wh.plnk", "a/.wh.c"];
    let tar = tar(&names.map(|name| (name, plain.clone(), WriterEntry::File(b"ignored"))));
    let (index, region) = scanned(&tar).unwrap();
    let kinds: Vec<_> = index
        .entries
        .iter()
        .map(|entry| (entry.path.to_string(), entry.kind.clone()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("/a/b".into(), EntryKind::Whiteout),
            ("/a".into(), EntryKind::OpaqueWhiteout),
            ("/a/c".into(), EntryKind::Whiteout)
        ]
    );
    assert!(region.is_empty());
    for bad in [".wh.", ".wh..", ".wh..."] {
        let tar = super::tests::tar(&[(bad, Metadata::default(), WriterEntry::File(b""))]);
        assert!(
            matches!(
                scanned(&tar),
                Err(ScanError::Corrupt {
                    source: TarError::Whiteout { .. },
                    ..
                })
            ),
            "{bad}"
        );
    }
}

#[test]
fn a_tar_cut_anywhere_is_truncated_not_shorter() {
    let tar = file(&[9; 5000]);
    let end_mark = tar.len() - 1024;
    for len in [1, 511, 513, 1000, end_mark - 1] {
        assert!(
            matches!(scanned(&tar[..len]), Err(ScanError::Truncated { .. })),
            "{len}"
        );
    }
    // Container tools take an archive without its end mark, and so do we.
    for len in [end_mark, end_mark + 512] {
        assert_eq!(scanned(&tar[..len]).unwrap().0.entries.len(), 1);
    }
    let garbage = [&tar[..end_mark], &[0; 512], &tar].concat();
    assert!(matches!(
        scanned(&garbage),
        Err(ScanError::Corrupt {
            source: TarError::LoneZeroBlock,
            ..
        })
    ));
    assert!(scanned(&[&tar[..], b"trailing bytes count for the digest only"].concat()).is_ok());
}

#[test]
fn limits_stop_a_scan() {
    let tar = file(&[9; 5000]);
    let what = |limits: Limits| match scanned_within(&tar, &limits) {
        Err(ScanError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let default = Limits::default();
    assert_eq!(
        what(Limits {
            entries: 0,
            ..default
        }),
        "entries"
    );
    assert_eq!(
        what(Limits {
            unpacked_bytes: 4000,
            ..default
        }),
        "unpacked bytes"
    );
    assert_eq!(
        what(Limits {
            metadata_bytes: 0,
            ..default
        }),
        "bytes of names, xattrs and sparse maps"
    );
}

#[test]
fn layers_below_count_against_the_limits() {
    let tar = file(&[9; 5000]);
    let limits = Limits {
        entries: 2,
        ..Limits::default()
    };
    let scan_above = |below| scan(&tar[..], RegionIndex(0), &mut Region::default(), &limits, below);
    let (_, first) = scan_above(ScanSummary::default()).unwrap();
    assert_eq!((first.entries, first.file_bytes), (1, 5000));
    let (_, second) = scan_above(first).unwrap();
    let error = scan_above(first.plus(second)).unwrap_err();
    assert!(matches!(
        error,
        ScanError::Limit {
            what: "entries",
            limit: 2
        }
    ));
}

/// Several headers before one entry are as long together as one may be.
#[test]
fn extended_headers_do_not_pile_up() {
    let record = [b"65000 comment=".as_slice(), &[b'x'; 65000 - 15], b"\n"].concat();
    let header = |len: usize| {
        let mut tar = file(b"");
        tar.truncate(512);
        bent(&tar, |header| {
            header[156] = b'x';
            header[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
        })
    };
    let mut piled = Vec::new();
    for _ in 0..70 {
        piled.extend(header(record.len()));
        piled.extend(&record);
        piled.resize(piled.len().next_multiple_of(512), 0);
    }
    piled.extend(file(b"x"));
    assert!(matches!(
        scanned(&piled),
        Err(ScanError::Corrupt {
            source: TarError::TooLong {
                what: "extended headers of one entry",
                ..
            },
            ..
        })
    ));
}

/// Changes a header and makes its checksum right again.
fn bent(tar: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut tar = tar.to_vec();
    change(&mut tar[..512]);
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

#[test]
fn headers_that_lie_are_refused() {
    let tar = file(b"content");
    let error = |change: &dyn Fn(&mut [u8])| scanned(&bent(&tar, change)).unwrap_err();
    let corrupt = |error: ScanError| match error {
        ScanError::Corrupt { offset: 0, source } => source,
        other => panic!("{other:?}"),
    };
    let dotdot = error(&|header| header[..9].copy_from_slice(b"../escape"));
    assert!(matches!(corrupt(dotdot), TarError::Path(_)));
    let huge = error(&|header| {
        header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255])
    });
    assert!(
        matches!(
            huge,
            ScanError::Limit {
                what: "unpacked bytes",
                ..
            }
        ),
        "{huge:?}"
    );
    let negative = error(&|header| header[124..136].fill(0xff));
    assert!(matches!(
        corrupt(negative),
        TarError::Number { field: "size", .. }
    ));
    let odd = error(&|header| header[156] = b'M');
    assert!(matches!(odd, ScanError::Unsupported { typeflag: 'M', .. }));
    let empty_link = error(&|header| header[156] = b'2');
    assert!(matches!(
        corrupt(empty_link),
        TarError::SymlinkTarget { len: 0, .. }
    ));
    let mut wrong = tar.clone();
    wrong[0] ^= 1;
    assert!(matches!(
        corrupt(scanned(&wrong).unwrap_err()),
        TarError::Checksum { .. }
    ));
}

#[test]
fn size_of_a_directory_or_link_is_ignored() {
    let tar = bent(
        &tar(&[("d", Metadata::default(), WriterEntry::Directory)]),
        |header| {
            header[124..135].copy_from_slice(b"00000001000");
        },
    );
    assert_eq!(scanned(&tar).unwrap().0.entries[0].kind, EntryKind::Directory);
}

#[test]
fn our_own_sparse_files_come_back() {
    let name = "d/".repeat(80) + "f";
    for (len, parts) in [
        (1_u64 << 40, vec![4096..8192, 1 << 30..(1 << 30) + 4096]),
        (1 << 20, Vec::new()),
        (12_300, vec![0..4096, 8192..12_300]),
        (1 << 62, (0..3000).map(|n| n * 8192..n * 8192 + 4096).collect()),
    ] {
        let mut writer = Writer::new(Vec::new());
        writer
            .sparse_header(&path(&name), &Metadata::default(), len, &parts)
            .unwrap();
        let data_len = parts.iter().map(|part| part.end - part.start).sum();
        let data = vec![b'x'; usize::try_from(data_len).unwrap()];
        writer.get_mut().extend(&data);
        writer.pad(data_len).unwrap();
        writer
            .entry(&path("next"), &Metadata::default(), WriterEntry::Fifo)
            .unwrap();
        let (index, region) = scanned(&writer.finish().unwrap()).unwrap();
        assert_eq!(region[..data.len()], data);
        assert_eq!(
            (index.entries[0].path.clone(), index.entries.len()),
            (path(&name), 2)
        );
        let EntryKind::File(found) = &index.entries[0].kind else {
            panic!("{:?}", index.entries[0].kind);
        };
        let ranges: Vec<_> = found
            .segments
            .iter()
            .map(|segment| segment.file_offset..segment.file_offset + segment.len)
            .collect();
        assert_eq!((found.size, ranges), (len, parts));
    }
}

#[test]
fn old_gnu_sparse_file_keeps_its_holes() {
    // Two parts: 600 bytes at 4096 + 100, and 10 bytes at 1 MiB; the file is 2 MiB long.
    let stored = [&[7; 600][..], &[8; 10]].concat();
    let tar = bent(&file(&stored), |header| {
        header[156] = b'S';
        header[257..265].copy_from_slice(b"ustar  \0");
        header[386..398].copy_from_slice(b"00000010144\0");
        header[398..410].copy_from_slice(b"00000001130\0");
        header[410..422].copy_from_slice(b"00004000000\0");
        header[422..434].copy_from_slice(b"00000000012\0");
        header[483..495].copy_from_slice(b"00010000000\0");
    });
    let (index, region) = scanned(&tar).unwrap();
    let segment = |file_offset, region_offset, len| Segment {
        file_offset,
        region: RegionIndex(3),
        region_offset,
        len,
    };
    let segments = vec![segment(4096, 0, 4096), segment(1 << 20, 4096, 4096)];
    assert_eq!(
        index.entries[0].kind,
        EntryKind::File(FileData {
            size: 2 << 20,
            segments
        })
    );
    assert_eq!((region[99], region[100], region[699], region[700]), (0, 7, 7, 0));
    assert_eq!(
        (region[4096], region[4105], region[4106], region.len()),
        (8, 8, 0, 8192)
    );
}
