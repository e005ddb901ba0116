//! What `e2fsck` calls clean, we do.

use firebrick_ext4::check::check;

use crate::image::Image;
use crate::made;

fn findings(image: &Image) -> Vec<String> {
    let report = check(&image.bytes()).unwrap();
    assert!(report.inodes_used >= 11 && report.blocks_used > 0);
    assert!(report.inodes_used <= report.inodes && report.blocks_used <= report.blocks);
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn images_of_mke2fs_are_clean() {
    let source = made::source();
    for arguments in [
        "-t ext4",
        "-t ext4 -b 4096",
        "-t ext4 -b 2048 -g 2048",
        "-t ext4 -O ^metadata_csum,uninit_bg -g 2048",
        "-t ext4 -O orphan_file,metadata_csum_seed",
        "-t ext4 -O ^has_journal,meta_bg,^resize_inode -g 2048",
        "-t ext4 -O sparse_super2",
        "-t ext4 -I 128 -O ^64bit,^flex_bg",
        "-t ext4 -I 1024 -b 4096",
        "-t ext3",
        "-t ext2 -b 2048",
        "-t ext2 -r 0",
    ] {
        let image = Image::make(arguments, "32M", Some(source.path()));
        assert_eq!(findings(&image), Vec::<String>::new(), "{arguments}");
        if !arguments.contains("-r 0") {
            image.index_directories();
            assert_eq!(findings(&image), Vec::<String>::new(), "{arguments}, indexed");
        }
    }
}

/// Other hashes are not computed, and the rest is looked at all the same.
#[test]
fn indexes_of_other_hashes_are_clean() {
    let source = made::source();
    for hash in ["legacy", "tea"] {
        let image = Image::make("-t ext4 -b 1024", "8M", Some(source.path()));
        image.alter(&[&format!("set_super_value def_hash_version {hash}")]);
        image.index_directories();
        let root = image.ask("htree_dump /dir/sub");
        assert!(root.contains("Hash Version:"), "{root}");
        assert_eq!(findings(&image), Vec::<String>::new(), "{hash}");
    }
}

#[test]
fn images_of_ours_are_clean() {
    let image = made::ours();
    assert_eq!(findings(&image), Vec::<String>::new());
}

/// The state of a filesystem is no damage, and is told.
#[test]
fn notes_are_no_findings() {
    let image = made::ours();
    image.alter(&["set_super_value state 2"]);
    image.check();
    let report = check(&image.bytes()).unwrap();
    assert!(report.is_clean());
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
}

#[test]
fn what_is_not_checked_is_refused_by_name() {
    for (feature, word) in [("quota", "quota"), ("ea_inode", "ea_inode"), ("mmp", "mmp")] {
        let image = Image::make(&format!("-t ext4 -O {feature}"), "16M", None);
        let error = check(&image.bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let image = Image::make("-t ext4", "16M", None);
    image.alter(&["feature needs_recovery"]);
    let error = check(&image.bytes()).unwrap_err().to_string();
    assert!(error.contains("needs_recovery"), "{error}");
}
