//! What cannot be kept right is refused by name, before anything is written.

use std::fs::File;

use firebrick_ext4::edit::{EditError, Editor};
use firebrick_ext4::read::ReadError;

use crate::image::Image;

fn refusal(image: &Image) -> EditError {
    let before = image.bytes();
    let file = File::options().read(true).write(true).open(image.path()).unwrap();
    let error = Editor::open(file).unwrap_err();
    assert!(image.bytes() == before);
    error
}

#[test]
fn a_journal_that_must_be_replayed() {
    let image = Image::make("-t ext4", "8M", None);
    image.alter(&["feature needs_recovery"]);
    assert!(matches!(
        refusal(&image),
        EditError::Read(ReadError::NeedsRecovery)
    ));
}

#[test]
fn features_that_changes_would_break() {
    for (arguments, name) in [
        ("-t ext4 -O quota", "quota"),
        ("-t ext4 -O ea_inode", "ea_inode"),
        ("-t ext4 -O mmp", "mmp"),
        ("-t ext4 -O verity", "verity"),
        ("-t ext4 -O project,quota", "project"),
    ] {
        let image = Image::make(arguments, "8M", None);
        let error = refusal(&image).to_string();
        assert!(error.contains(name), "{arguments}: {error}");
    }
}

#[test]
fn filesystems_that_must_be_repaired() {
    for (command, reason) in [
        ("set_super_value state 0", "not unmounted cleanly"),
        ("set_super_value state 3", "has errors"),
        ("set_super_value last_orphan 12", "being removed"),
    ] {
        let image = Image::make("-t ext4", "8M", None);
        image.alter(&[command]);
        let error = refusal(&image).to_string();
        assert!(error.contains(reason), "{command}: {error}");
    }
}

#[test]
fn wrong_checksums() {
    for command in ["set_block_group 0 checksum 1", "set_block_group 0 block_bitmap 0"] {
        let image = Image::make("-t ext4", "8M", None);
        image.alter(&[command]);
        assert!(
            matches!(refusal(&image), EditError::Read(ReadError::Corrupt { .. })),
            "{command}"
        );
    }
}
