//! One thing is damaged at a time: found as `e2fsck -fn` finds it, and put right where it follows from the rest.

use firebrick_ext4::check::check;
use firebrick_ext4::edit::EditError;

use crate::image::Image;
use crate::made;

/// What becomes of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is put right.
    Mended,
    /// It is for `e2fsck`, which asks.
    Refused,
}
use Fate::{Mended, Refused};

/// Commands for `debugfs`, which puts checksums right, but not where it writes raw bytes (`zap_block`).
const DAMAGES: &[(&str, Fate)] = &[
    // Counts.
    ("set_super_value free_blocks_count 7", Mended),
    ("set_super_value free_inodes_count 7", Mended),
    ("set_block_group 0 free_blocks_count 3", Mended),
    ("set_block_group 0 free_inodes_count 3", Mended),
    ("set_block_group 0 used_dirs_count 9", Mended),
    ("set_inode_field /file links_count 5", Mended),
    ("set_inode_field /dir links_count 9", Mended),
    ("set_inode_field /file blocks 8", Mended),
    ("set_inode_field /fifo blocks 8", Mended),
    ("ln /file /dir/third", Mended),
    // Bitmaps.
    ("setb 900 3", Mended),
    ("freeb {/file:0} 2", Mended),
    ("seti <400>", Mended),
    ("freei /file", Mended),
    // Names.
    ("unlink /fifo", Refused),
    ("unlink /dir/other", Refused),
    ("clri /short", Refused),
    ("clri /dir/other/third", Refused),
    ("ln /dir/other /again", Refused),
    ("zap_block -f /dir/other -o 12 -l 1 -p 0x15 0", Refused), // `..`
    ("zap_block -f /dir/other -o 0 -l 1 -p 0x15 0", Refused),  // `.`
    ("zap_block -f /dir/other -o 4 -l 1 -p 0x09 0", Refused),  // a length
    ("zap_block -f /dir/other -o 30 -l 1 -p 0xff 0", Refused), // the length of a name
    ("zap_block -f /dir/other -o 31 -l 1 -p 1 0", Refused),    // a type
    ("zap_block -f /dir/other -o 32 -l 1 -p 0x2f 0", Refused), // a slash
    ("zap_block -f /dir/sub -o 28 -l 1 -p 9 0", Refused),      // the index: its hash
    ("zap_block -f /dir/sub -o 36 -l 1 -p 99 0", Refused),     // a block of the index
    ("zap_block -f /dir/sub -o 40 -l 4 -p 1 0", Refused),      // a hash in the index
    ("zap_block -f /dir/sub -o 8 -l 1 -p 0x55 2", Refused),    // a name whose hash is another
    // Inodes.
    ("set_inode_field /file mode 0", Refused),
    ("set_inode_field /fifo mode 0100644", Refused),
    ("set_inode_field /dir/other mode 0100644", Refused),
    ("set_inode_field /file dtime 1700000000", Refused),
    ("set_inode_field /file links_count 0", Refused),
    ("set_inode_field /file size 100", Refused),
    ("set_inode_field /dir/other size 99", Refused),
    ("set_inode_field /short size 3", Refused),
    ("set_inode_field /long size 3", Refused),
    ("set_inode_field /fifo size 3", Refused),
    ("set_inode_field /file flags 0x1000", Refused),
    ("set_inode_field /file faddr 9", Refused),
    ("set_inode_field /file file_acl 1000000", Refused),
    ("set_inode_field /file file_acl 3", Refused),
    ("set_inode_field <2> mode 0100644", Refused),
    ("set_inode_field <8> mode 040755", Refused),
    ("clri <2>", Refused),
    // Blocks.
    ("set_inode_field /file block[5] 3000000", Refused),
    ("set_inode_field /file block[5] 2", Refused),
    ("set_inode_field /file block[0] 4000000", Refused),
    ("set_inode_field /file block[1] 9", Refused),
    ("set_inode_field /sparse block[0] 0x0001f30b", Refused),
    ("set_inode_field /dir block[5] {/file:0}", Refused),
    ("set_inode_field /long block[5] {/file:0}", Refused),
    ("zap_block -o 20 -l 1 -p 0x33 {tree}", Refused), // the node of an extent tree
    ("zap_block -o 12 -l 1 -p 0x33 {tree}", Refused),
    // Attributes.
    ("zap_block -o 0 -l 1 -p 0x33 {acl}", Refused),
    ("zap_block -o 32 -l 1 -p 0xee {acl}", Refused), // the length of a name
    ("zap_block -o 34 -l 1 -p 0x01 {acl}", Refused), // where the value is
    ("zap_block -o 44 -l 1 -p 0x77 {acl}", Refused), // a hash
    // The filesystem itself.
    ("set_block_group 0 block_bitmap 3000000", Refused),
    ("set_block_group 0 inode_table 3000000", Refused),
    ("set_block_group 0 inode_bitmap 1", Refused),
    ("set_super_value log_block_size 9", Refused),
    ("set_super_value inodes_count 77", Refused),
    ("set_super_value blocks_per_group 12345", Refused),
    ("set_super_value first_ino 500000", Refused),
    ("set_super_value r_blocks_count 3000000", Refused),
];

/// Counts that a checksum covers, where there are none.
const BARE: &[(&str, Fate)] = &[
    ("zap_block -o 4 -l 1 -p 0x05 {acl}", Mended), // how many have them
];

/// Checksums alone, where there are such: what is covered stays right.
const CHECKSUMS: &[(&str, Fate)] = &[
    ("set_block_group 0 checksum 0x1234", Mended),
    ("set_block_group 0 block_bitmap_csum 0x1234", Mended),
    ("set_block_group 0 inode_bitmap_csum 0x1234", Mended),
    ("set_inode_field /file checksum 0x12345", Mended),
    ("set_inode_field <7> checksum 0x12345", Mended),
    ("zap_block -f /dir/other -o {end-2} -l 2 -p 7 0", Mended), // of a folder's block
    ("zap_block -f /dir/sub -o {end-3} -l 2 -p 7 0", Mended),   // of an index
    ("zap_block -f /dir/sub -o {end-3} -l 2 -p 7 1", Mended),   // of a leaf
    ("zap_block -o {end-3} -l 2 -p 7 {tree}", Mended),          // of extents
    ("zap_block -o 16 -l 2 -p 7 {acl}", Mended),                // of attributes
    ("zap_block -f /dir/other -o {end-9} -l 2 -p 7 0", Refused), // it is not there any more
];

/// Fills in what depends on the image; `None` where it has nothing of the kind.
fn command(image: &Image, damage: &str) -> Option<String> {
    let block_size: usize = field(&image.ask("stats -h"), "Block size:")?;
    let mut command = damage.to_owned();
    if command.contains("{/file:0}") {
        command = command.replace("{/file:0}", image.ask("bmap /file 0").trim());
    }
    if command.contains("{acl}") {
        let block: u64 = field(&image.ask("stat /dir"), "File ACL:").filter(|block| *block != 0)?;
        command = command.replace("{acl}", &block.to_string());
    }
    if command.contains("{tree}") {
        let said = image.ask("stat /sparse");
        let block: u64 = field(&said, "(ETB0):")?;
        command = command.replace("{tree}", &block.to_string());
    }
    for end in 1..10 {
        command = command.replace(&format!("{{end-{end}}}"), &(block_size - end).to_string());
    }
    Some(command)
}

fn field<N: std::str::FromStr>(text: &str, name: &str) -> Option<N> {
    let rest = text.split_once(name)?.1.trim_start();
    let end = rest
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Damages a copy, and compares. Gives whether `e2fsck` found it.
fn compare(image: &Image, damage: &str, fate: Fate, what: &str) -> bool {
    let Some(command) = command(image, damage) else {
        return false;
    };
    let bad = Image::empty();
    std::fs::copy(image.path(), bad.path()).unwrap();
    bad.damage(&command);
    let (code, said) = made::e2fsck(&bad.path());
    // It does not count all that it would put right.
    let damaged = code != 0 || said.contains("Fix? no");
    let report = check(&bad.bytes()).unwrap();
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        report.is_clean(),
        !damaged,
        "{what}: {command}: e2fsck gave {code}\n{said}\n{found:#?}"
    );
    if !damaged {
        return false;
    }
    let before = bad.bytes();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(bad.path())
        .unwrap();
    let repaired = report.repair(&file);
    if report.is_repairable() {
        repaired.unwrap();
        let (code, said) = made::e2fsck(&bad.path());
        assert_eq!(
            code, 0,
            "{what}: {command}: after the repair of {found:#?}\n{said}"
        );
        assert!(check(&bad.bytes()).unwrap().is_clean(), "{what}: {command}");
    } else {
        assert!(matches!(repaired, Err(EditError::Beyond)));
        assert!(
            bad.bytes() == before,
            "{what}: {command}: changed what it refused to repair"
        );
    }
    let expected = fate == Mended;
    assert_eq!(report.is_repairable(), expected, "{what}: {command}: {found:#?}");
    true
}

#[test]
fn every_damage_is_found_and_mended_or_refused() {
    let source = made::source();
    let images = [
        (
            "mke2fs",
            made::foreign("-t ext4 -b 1024 -N 512", source.path()),
            true,
        ),
        (
            "mke2fs without checksums",
            made::foreign("-t ext4 -b 1024 -N 512 -O ^metadata_csum", source.path()),
            false,
        ),
        (
            "ext2",
            made::foreign("-t ext2 -b 1024 -N 512", source.path()),
            false,
        ),
        ("ours", made::ours(), true),
    ];
    let mut found = std::collections::BTreeSet::new();
    for (what, image, checksums) in &images {
        let more: &[_] = if *checksums { CHECKSUMS } else { BARE };
        for (damage, fate) in DAMAGES.iter().chain(more) {
            if compare(image, damage, *fate, what) {
                found.insert(*damage);
            }
        }
    }
    // None of them is one that nobody sees.
    let all = DAMAGES.iter().chain(BARE).chain(CHECKSUMS);
    let unseen: Vec<_> = all.filter(|(damage, _)| !found.contains(damage)).collect();
    assert!(unseen.is_empty(), "e2fsck never finds {unseen:?}");
}

/// `debugfs` cannot write this one: it would put it right.
#[test]
fn the_checksum_of_the_superblock() {
    let image = made::ours();
    let mut bytes = image.bytes();
    bytes[1024 + 0x3fc] ^= 1;
    std::fs::write(image.path(), &bytes).unwrap();
    assert_ne!(made::e2fsck(&image.path()).0, 0);
    let report = check(&bytes).unwrap();
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(image.path())
        .unwrap();
    report.repair(&file).unwrap();
    image.check();
    assert!(check(&image.bytes()).unwrap().is_clean());
}
