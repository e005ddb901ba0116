//! What the superblock says, compared with `dumpe2fs`; and what is refused.

use firebrick_ext4::read::{Fault, Filesystem, Place, ReadError};

use crate::image::{Image, run, tool};

/// The lines `Name: value` that `dumpe2fs -h` prints.
fn dumpe2fs(image: &Image) -> impl Fn(&str) -> String + use<> {
    let output = run(tool("dumpe2fs").arg("-h").arg(image.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    move |name| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    }
}

#[test]
fn summary_is_what_dumpe2fs_prints() {
    for arguments in [
        "-t ext4 -L some-label -U 01234567-89ab-cdef-0123-456789abcdef",
        "-t ext4 -b 1024 -O sparse_super2,orphan_file,metadata_csum_seed,mmp,quota,project,verity,large_dir,ea_inode",
        "-t ext4 -O uninit_bg,^metadata_csum,stable_inodes",
        "-t ext2 -b 2048 -L sixteen-bytes-ab",
    ] {
        let image = Image::make(arguments, "40M", None);
        let filesystem = image.open();
        let summary = filesystem.summary();
        let said = dumpe2fs(&image);
        let label = String::from_utf8(summary.label.to_vec()).unwrap();
        assert_eq!(
            if label.is_empty() { "<none>" } else { &label },
            said("Filesystem volume name")
        );
        assert_eq!(summary.uuid_text(), said("Filesystem UUID"));
        assert_eq!(summary.features.names().join(" "), said("Filesystem features"));
        assert_eq!(summary.block_size.to_string(), said("Block size"));
        assert_eq!(summary.blocks.to_string(), said("Block count"));
        assert_eq!(summary.free_blocks.to_string(), said("Free blocks"));
        assert_eq!(summary.reserved_blocks.to_string(), said("Reserved block count"));
        assert_eq!(summary.inodes.to_string(), said("Inode count"));
        assert_eq!(summary.free_inodes.to_string(), said("Free inodes"));
        assert_eq!(summary.inode_size.to_string(), said("Inode size"));
        assert_eq!(summary.mount_count.to_string(), said("Mount count"));
        assert_eq!(said("Filesystem state"), "clean");
        assert!(summary.state.clean && !summary.state.errors);
        let created = summary.created.unwrap().seconds;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!((now - 600..=now).contains(&u64::try_from(created).unwrap()));
        assert_eq!(summary.mounted, None);
    }
}

#[test]
fn states_other_than_clean() {
    let image = Image::make("-t ext2", "4M", None);
    image.alter(&["set_super_value state 2"]);
    let summary = image.open().summary().clone();
    assert!(!summary.state.clean && summary.state.errors);
}

#[test]
fn what_is_not_supported_is_named() {
    for (arguments, name) in [
        ("-t ext4 -O inline_data", "inline_data"),
        ("-t ext4 -O encrypt", "encrypt"),
        ("-t ext4 -O casefold -E encoding=utf8", "casefold"),
        ("-t ext4 -O bigalloc", "bigalloc"),
    ] {
        let image = Image::make(arguments, "8M", None);
        let error = Filesystem::open(image.bytes()).unwrap_err();
        assert!(
            matches!(&error, ReadError::Unsupported { feature } if feature == name),
            "{error}"
        );
    }
}

#[test]
fn a_journal_that_was_not_replayed_is_refused() {
    let image = Image::make("-t ext4", "16M", None);
    image.alter(&["feature needs_recovery"]);
    let error = Filesystem::open(image.bytes()).unwrap_err();
    assert!(matches!(error, ReadError::NeedsRecovery), "{error}");
}

#[test]
fn what_is_no_filesystem() {
    let error = |bytes: &[u8]| Filesystem::open(bytes).unwrap_err();
    let corrupt = |error| match error {
        ReadError::Corrupt {
            place: Place::Superblock,
            fault,
        } => fault,
        other => panic!("{other}"),
    };
    assert!(matches!(corrupt(error(b"")), Fault::TooShort { actual: 0, .. }));
    assert!(matches!(
        corrupt(error(&[0; 4096])),
        Fault::Field {
            field: "s_magic",
            value: 0
        }
    ));
    let bytes = Image::make("-t ext4", "4M", None).bytes();
    let cut = &bytes[..bytes.len() - 1];
    assert!(matches!(
        corrupt(error(cut)),
        Fault::TooShort {
            claimed: 4_194_304,
            actual: 4_194_303
        }
    ));
    let mut altered = bytes.clone();
    altered[1024 + 0x78] ^= 1;
    assert!(matches!(corrupt(error(&altered)), Fault::Checksum { .. }));
    let said = error(&altered).to_string();
    assert!(
        said.starts_with("the superblock is corrupt: its checksum is 0x"),
        "{said}"
    );
}
