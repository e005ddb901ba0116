//! Paths: `..`, symbolic links, and what does not exist.

use std::os::unix::fs::symlink;

use firebrick_ext4::read::{Filesystem, LastSymlink, ReadError};

use crate::image::Image;

fn image() -> Filesystem<Vec<u8>> {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    std::fs::create_dir_all(root.join("usr/lib/deep")).unwrap();
    std::fs::write(root.join("usr/lib/file"), "content").unwrap();
    for (target, name) in [
        ("usr/lib", "lib"),
        ("/usr/lib", "absolute"),
        ("../../..//./lib/file", "usr/lib/deep/up"),
        ("lib/deep/up", "chain"),
        ("nowhere", "dangling"),
        ("loop-b", "loop-a"),
        ("loop-a", "loop-b"),
        ("usr/lib/file", "to-file"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    for index in 0..42 {
        let target = if index == 0 {
            "usr".to_owned()
        } else {
            format!("s{}", index - 1)
        };
        symlink(target, root.join(format!("s{index}"))).unwrap();
    }
    Filesystem::open(Image::make("-t ext4", "4M", Some(root)).bytes()).unwrap()
}

#[test]
fn ways_to_one_file() {
    let filesystem = image();
    let number = |path: &str, last| filesystem.lookup(path.as_bytes(), last).unwrap().number();
    let file = number("/usr/lib/file", LastSymlink::Keep);
    for path in [
        "usr/lib/file",
        "//usr/./lib//file",
        "/lib/file",
        "absolute/file",
        "/chain",
        "to-file",
        "../../lib/deep/../file",
    ] {
        assert_eq!(number(path, LastSymlink::Follow), file, "{path}");
    }
    assert_ne!(number("/to-file", LastSymlink::Keep), file);
    assert_eq!(
        number("/absolute/deep/..", LastSymlink::Keep),
        number("/lib/", LastSymlink::Keep)
    );
    assert_eq!(number("/..", LastSymlink::Keep).get(), 2);
    assert_eq!(
        number("s39", LastSymlink::Follow),
        number("usr", LastSymlink::Keep)
    );
}

#[test]
fn ways_to_nothing() {
    let filesystem = image();
    let error = |path: &str, last| filesystem.lookup(path.as_bytes(), last).unwrap_err();
    let said = |path: &str| error(path, LastSymlink::Follow).to_string();
    assert_eq!(said("/usr/none/x"), "\"/usr/none\" does not exist in the image");
    assert_eq!(said("dangling"), "\"/nowhere\" does not exist in the image");
    assert_eq!(
        said("lib/file/x"),
        "\"/usr/lib/file\" in the image is not a directory"
    );
    assert_eq!(
        said("lib/file/.."),
        "\"/usr/lib/file\" in the image is not a directory"
    );
    assert!(matches!(
        error("to-file/", LastSymlink::Keep),
        ReadError::NotDirectory { .. }
    ));
    assert!(matches!(
        error("loop-a", LastSymlink::Follow),
        ReadError::TooManySymlinks { limit: 40, .. }
    ));
    assert!(matches!(
        error("s41", LastSymlink::Follow),
        ReadError::TooManySymlinks { .. }
    ));
    assert!(filesystem.lookup(b"loop-a", LastSymlink::Keep).is_ok());
}

#[test]
fn calls_that_do_not_suit_the_type() {
    let filesystem = image();
    let at = |path: &str| filesystem.lookup(path.as_bytes(), LastSymlink::Keep).unwrap();
    let said = filesystem.read_dir(&at("usr/lib/file")).unwrap_err().to_string();
    assert!(said.ends_with("is a regular file, not a directory"), "{said}");
    assert!(matches!(
        filesystem.read_link(&at("usr")),
        Err(ReadError::WrongType { .. })
    ));
    assert!(matches!(
        filesystem.open_file(&at("lib")),
        Err(ReadError::WrongType { .. })
    ));
    let none = firebrick_ext4::read::InodeNumber::new(filesystem.summary().inodes + 1).unwrap();
    assert!(matches!(
        filesystem.inode(none),
        Err(ReadError::NoSuchInode { .. })
    ));
}
