//! Full filesystems, and what is left in what became free.

use std::io::{self, Read};

use firebrick_ext4::edit::EditError;
use firebrick_ext4::read::{LastSymlink, ReadError};
use firebrick_tree::Metadata;

use crate::image::Image;
use crate::model::edit;

fn file(
    editor: &mut firebrick_ext4::edit::Editor<std::fs::File>,
    path: &str,
    len: u64,
) -> Result<(), EditError> {
    editor.write_file(
        path.as_bytes(),
        &Metadata::default(),
        len,
        &mut io::repeat(b'z').take(len),
    )
}

#[test]
fn a_full_filesystem_says_how_much_is_missing() {
    let image = Image::make("-t ext4 -O ^has_journal -m 0 -N 64", "8M", None);
    let mut editor = edit(&image.path());
    match file(&mut editor, "/big", 20 << 20).unwrap_err() {
        EditError::NoSpace {
            needed_bytes,
            free_bytes,
        } => {
            assert!(
                needed_bytes <= 20 << 20 && needed_bytes > free_bytes,
                "{needed_bytes} {free_bytes}"
            );
        }
        other => panic!("{other}"),
    }
}

/// Every last block can be used, and after that every last inode.
#[test]
fn all_blocks_and_all_inodes_can_be_used() {
    let image = Image::make("-t ext4 -O ^has_journal -m 0 -N 64", "8M", None);
    let free = image.open().summary().free_blocks;
    let mut editor = edit(&image.path());
    file(&mut editor, "/all", free * 1024).unwrap_or_else(|error| {
        panic!("{error}: {free} blocks");
    });
    let mut names = 0;
    let error = loop {
        match editor.make_symlink(format!("/{names}").as_bytes(), b"t", &Metadata::default()) {
            Ok(()) => names += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EditError::NoInodes { count: 64 }), "{error}");
    // 64 less the first ten, lost+found and the file.
    assert_eq!(names, 64 - 12);
    editor.finish().unwrap();
    image.check();
    let summary = image.open().summary().clone();
    assert_eq!((summary.free_blocks, summary.free_inodes), (0, 0));
}

#[test]
fn what_was_removed_or_replaced_is_not_in_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let secret = b"a secret that nobody may find afterwards".repeat(3000);
    std::fs::write(folder.path().join("secret"), &secret).unwrap();
    std::fs::write(folder.path().join("replaced"), &secret).unwrap();
    std::fs::create_dir(folder.path().join("dir-of-secrets")).unwrap();
    std::fs::write(folder.path().join("dir-of-secrets/a-secret-name"), b"x").unwrap();
    let image = Image::make("-t ext4 -O ^has_journal", "8M", Some(folder.path()));
    let holds = |needle: &[u8]| image.bytes().windows(needle.len()).any(|part| part == needle);
    assert!(holds(b"nobody may find") && holds(b"a-secret-name"));
    let mut editor = edit(&image.path());
    editor.remove(b"/secret").unwrap();
    editor.remove(b"/dir-of-secrets").unwrap();
    file(&mut editor, "/replaced", 10).unwrap();
    let (_, changes) = editor.finish().unwrap();
    assert_eq!((changes.made, changes.removed, changes.written_bytes), (1, 4, 10));
    image.check();
    assert!(!holds(b"nobody may find") && !holds(b"a-secret-name") && !holds(b"dir-of-secrets"));
}

#[test]
fn contents_that_end_early_are_an_error() {
    let image = Image::make("-t ext4", "8M", None);
    let mut editor = edit(&image.path());
    let error = editor
        .write_file(b"/a", &Metadata::default(), 10, &mut &b"four"[..])
        .unwrap_err();
    assert!(
        matches!(
            error,
            EditError::Length {
                expected: 10,
                actual: 4,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_file_of_more_than_two_gigabytes_is_noted() {
    let image = Image::make("-t ext2 -O ^large_file", "8M", None);
    let mut editor = edit(&image.path());
    let len = 3 << 30;
    let written = editor.write_file(
        b"/sparse",
        &Metadata::default(),
        len,
        &mut io::repeat(0).take(len),
    );
    written.unwrap();
    editor.finish().unwrap();
    image.check();
    assert!(image.ask("stats").contains("large_file"));
    let inode = image.open().lookup(b"/sparse", LastSymlink::Keep).unwrap();
    assert_eq!(inode.stat().size, len);
}

#[test]
fn files_that_the_map_cannot_hold_are_refused() {
    let image = Image::make("-t ext2 -b 1024", "8M", None);
    let mut editor = edit(&image.path());
    let len = 20 << 30;
    let error = editor
        .write_file(b"/a", &Metadata::default(), len, &mut io::repeat(0))
        .unwrap_err();
    assert!(matches!(error, EditError::FileTooLarge { .. }), "{error}");
}

#[test]
fn paths_that_lead_nowhere() {
    let image = Image::make("-t ext4", "8M", None);
    let mut editor = edit(&image.path());
    file(&mut editor, "/file", 1).unwrap();
    let read = |error: EditError| match error {
        EditError::Read(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(
        read(file(&mut editor, "/no/such", 1).unwrap_err()),
        ReadError::NotFound { .. }
    ));
    assert!(matches!(
        read(file(&mut editor, "/file/x", 1).unwrap_err()),
        ReadError::NotDirectory { .. }
    ));
    assert!(matches!(
        read(editor.remove(b"/nothing").unwrap_err()),
        ReadError::NotFound { .. }
    ));
    for path in ["/", "", "/.", "/a/..", &format!("/{}", "n".repeat(256))] {
        let error = file(&mut editor, path, 1).unwrap_err();
        assert!(
            matches!(error, EditError::Name { .. } | EditError::Read(_)),
            "{path}: {error}"
        );
    }
    for path in ["/", "/lost+found"] {
        assert!(matches!(
            editor.remove(path.as_bytes()).unwrap_err(),
            EditError::Needed { .. }
        ));
    }
    assert!(matches!(
        file(&mut editor, "/lost+found", 1).unwrap_err(),
        EditError::Needed { .. }
    ));
    editor.finish().unwrap();
    image.check();
}
