//! Bytes that were altered: an error or the same answer, never a panic, and never without end.

use std::time::{Duration, Instant};

use firebrick_ext4::read::{
    Fault, FileType, Filesystem, InodeNumber, LastSymlink, Place, ReadError, Run, Stat, Summary,
};
use firebrick_tree::Xattrs;

use crate::image::Image;

/// All metadata of one file.
#[derive(Debug, PartialEq)]
struct Record {
    path: Vec<u8>,
    stat: Stat,
    xattrs: Xattrs,
    runs: Vec<Run>,
    /// In bytes. The target of a long symlink lies in a block of its own that has no checksum.
    target_len: usize,
}

/// Reads everything there is. Contents are read too, as far as `limit`, but not kept: they have no checksum.
fn read_all(image: &[u8], limit: usize) -> Result<(Summary, Vec<Record>), ReadError> {
    let filesystem = Filesystem::open(image)?;
    let mut records = Vec::new();
    let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT)?);
    let mut buffer = [0; 8192];
    while let Some(visit) = walk.advance()? {
        let (path, inode) = (visit.path.to_vec(), visit.inode);
        let xattrs = filesystem.xattrs(&inode)?;
        let (mut runs, mut target_len) = (Vec::new(), 0);
        match inode.stat().file_type {
            FileType::Regular => {
                runs = filesystem.runs(&inode)?.collect::<Result<_, _>>()?;
                let mut file = filesystem.open_file(&inode)?;
                let mut read = 0;
                while read < limit {
                    match file.read_some(&mut buffer)? {
                        0 => break,
                        count => read += count,
                    }
                }
            }
            FileType::Symlink => {
                let target = filesystem.read_link(&inode)?;
                target_len = target.len();
                filesystem.lookup(&target, LastSymlink::Follow).ok();
            }
            _ => {}
        }
        let stat = inode.stat().clone();
        records.push(Record {
            path,
            stat,
            xattrs,
            runs,
            target_len,
        });
    }
    Ok((filesystem.summary().clone(), records))
}

/// A small image with one of every structure.
fn specimen(arguments: &str) -> Vec<u8> {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    for index in 0..30 {
        std::fs::write(root.join(format!("d/{}{index}", "name".repeat(20))), "").unwrap();
    }
    std::fs::write(root.join("data"), [b'd'; 3000]).unwrap();
    let mut sparse = vec![0; 40 * 1024];
    sparse
        .chunks_mut(1024)
        .step_by(2)
        .for_each(|block| block.fill(b'd'));
    std::fs::write(root.join("plain"), &sparse).unwrap();
    let file = std::fs::File::create(root.join("sparse")).unwrap();
    for block in 0..8_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[b'd'; 1024], block * 8192).unwrap();
    }
    std::os::unix::fs::symlink("data", root.join("short")).unwrap();
    std::os::unix::fs::symlink("x".repeat(100), root.join("long")).unwrap();
    let image = Image::make(&format!("{arguments} -b 1024 -N 64 -m 0"), "400K", Some(root));
    std::fs::write(image.beside("value"), [b'v'; 600]).unwrap();
    image.alter(&[
        "ea_set data user.small value",
        &format!("ea_set -f {} data user.large", image.beside("value").display()),
    ]);
    image.index_directories();
    image.bytes()
}

/// Offsets of the bytes that lie in blocks in which there is anything; of contents, which nobody interprets, only the first.
fn used(image: &[u8]) -> Vec<usize> {
    let blocks = image.chunks(1024).enumerate();
    let used = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    used.flat_map(|(index, block)| {
        let is_content = block.iter().all(|byte| *byte == b'd');
        index * 1024..index * 1024 + if is_content { 1 } else { block.len() }
    })
    .collect()
}

#[test]
fn the_specimens_have_every_structure() {
    let image = specimen("-t ext4 -O ^has_journal");
    let filesystem = Filesystem::open(&image).unwrap();
    let data = crate::image::at(&filesystem, "data");
    assert_eq!(
        filesystem.xattrs(&data).unwrap().len(),
        2,
        "in the inode and in a block"
    );
    let sparse = crate::image::at(&filesystem, "sparse");
    assert_eq!(
        filesystem.runs(&sparse).unwrap().count(),
        8,
        "more than fit into the inode"
    );
    assert_ne!(
        crate::image::at(&filesystem, "d").stat().flags & 0x1000,
        0,
        "a hash tree"
    );
}

/// With checksums, a changed byte of metadata is found out, or it is one that nobody reads.
#[test]
fn each_byte_in_turn_with_checksums() {
    let mut image = specimen("-t ext4 -O ^has_journal");
    let expected = read_all(&image, usize::MAX).unwrap();
    let mut found = 0;
    for offset in used(&image) {
        for flip in [0x01, 0x80, 0xff] {
            image[offset] ^= flip;
            match read_all(&image, usize::MAX) {
                Ok(read) => assert!(read == expected, "byte {offset} ^ {flip:#x} goes unnoticed"),
                Err(ReadError::Corrupt { .. } | ReadError::Unsupported { .. }) => found += 1,
                Err(other) => panic!("byte {offset} ^ {flip:#x}: {other}"),
            }
            image[offset] ^= flip;
        }
    }
    assert!(found > 3 * 10_000, "only {found} changes were found out");
}

/// Without, it may go unnoticed, but never for long.
fn each_byte_in_turn(arguments: &str) {
    let mut image = specimen(arguments);
    read_all(&image, usize::MAX).unwrap();
    for offset in used(&image) {
        for flip in [0x01, 0x80, 0xff] {
            image[offset] ^= flip;
            within_time(&image, &format!("{arguments}: byte {offset} ^ {flip:#x}"));
            image[offset] ^= flip;
        }
    }
}

#[test]
fn each_byte_in_turn_without_checksums() {
    each_byte_in_turn("-t ext4 -O ^has_journal,^metadata_csum");
}

#[test]
fn each_byte_in_turn_of_ext2() {
    each_byte_in_turn("-t ext2");
}

/// Several changes at once, of the kind that parsers trip over. The numbers are the same in every run.
#[test]
fn random_changes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for arguments in [
        "-t ext4 -O ^has_journal",
        "-t ext4 -O ^has_journal,^metadata_csum,ea_inode,meta_bg,^resize_inode",
        "-t ext2",
    ] {
        let whole = specimen(arguments);
        let used = used(&whole);
        for round in 0..1000 {
            let mut image = whole.clone();
            for _ in 0..=random.below(6) {
                let offset = used[random.below(used.len())];
                change(&mut image, offset, &used, &mut random);
            }
            within_time(&image, &format!("{arguments}, round {round}"));
        }
    }
}

fn change(image: &mut [u8], offset: usize, used: &[usize], random: &mut Random) {
    const NUMBERS: [u32; 10] = [0, 1, 2, 4, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];
    let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
    match random.below(5) {
        0 => image[offset] = random.next() as u8,
        1 => image[offset..][..1].copy_from_slice(&number[..1]),
        2 => image[offset & !1..][..2].copy_from_slice(&number[..2]),
        3 => image[offset & !3..][..4].copy_from_slice(&number),
        _ => {
            // One block takes the place of another: everything in it is sound, and nothing is where it belongs.
            let from = used[random.below(used.len())] & !1023;
            image.copy_within(from..from + 1024, offset & !1023);
        }
    }
}

fn within_time(image: &[u8], what: &str) {
    let start = Instant::now();
    let result = read_all(image, 1 << 20);
    let spent = start.elapsed();
    assert!(spent < Duration::from_secs(10), "{what} takes {spent:?}");
    if let Err(error) = result {
        assert!(!matches!(error, ReadError::Host { .. }), "{what}: {error}");
    }
}

/// xorshift64*: needs no crate and never changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }
}

#[test]
fn cut_off_anywhere() {
    let image = specimen("-t ext2");
    for end in (0..image.len()).step_by(512) {
        assert!(
            matches!(read_all(&image[..end], 0), Err(ReadError::Corrupt { .. })),
            "{end}"
        );
    }
}

#[test]
fn a_directory_below_itself() {
    let image = Image::make("-t ext4", "4M", None);
    image.alter(&["mkdir /a", "mkdir /a/b", "ln /a /a/b/loop"]);
    let error = read_all(&image.bytes(), 0).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::Corrupt {
                place: Place::Directory { .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("it has more than one name"), "{error}");
}

#[test]
fn a_wrong_checksum_says_whose() {
    let image = Image::make("-t ext4 -b 1024", "4M", None);
    image.alter(&["mkdir /d", "sif /d block[0] 0"]);
    // debugfs keeps the checksum right: what is wrong is the magic number of the extent tree.
    let error = read_all(&image.bytes(), 0).unwrap_err();
    assert!(
        error.to_string().contains("the extent tree of inode 12"),
        "{error}"
    );
    let image = Image::make("-t ext4 -b 1024", "4M", None);
    image.alter(&["mkdir /d"]);
    let mut bytes = image.bytes();
    let block = image.ask("blocks /d").trim().parse::<usize>().unwrap();
    bytes[block * 1024 + 40] ^= 1;
    let error = read_all(&bytes, 0).unwrap_err();
    let expected = Place::Directory {
        inode: InodeNumber::new(12).unwrap(),
        block: Some(block as u64),
    };
    assert!(
        matches!(error, ReadError::Corrupt { place, fault: Fault::Checksum { .. } } if place == expected),
        "{error}"
    );
}
