//! Folders with more names than fit one block, in an order that `e2fsck` and the kernel find names by.

use firebrick_tree::Metadata;

use crate::image::Image;
use crate::model::edit;

fn names(image: &Image, count: u32, name: impl Fn(u32) -> Vec<u8>) {
    let mut editor = edit(&image.path());
    editor.make_directory(b"/dir", &Metadata::default()).unwrap();
    for n in 0..count {
        let path = [b"/dir/", &name(n)[..]].concat();
        editor.make_symlink(&path, b"t", &Metadata::default()).unwrap();
    }
    editor.finish().unwrap();
    image.check();
}

/// Signed and unsigned hashes differ for bytes above 127 only; `e2fsck` tries every one.
#[test]
fn hashes_of_other_bytes_are_those_that_the_superblock_says() {
    let image = Image::make("-t ext4 -N 4000", "16M", None);
    names(&image, 1500, |n| format!("n\u{e9}\u{4e16}-{n:050}").into_bytes());
    assert!(image.ask("htree_dump /dir").contains("Hash Version: 1"));
    let unsigned = Image::make("-t ext4 -N 4000", "16M", None);
    unsigned.alter(&["set_super_value flags 2"]);
    names(&unsigned, 1500, |n| {
        format!("n\u{e9}\u{4e16}-{n:050}").into_bytes()
    });
}

#[test]
fn an_index_of_two_levels() {
    let image = Image::make("-t ext4 -b 1024 -N 12000", "64M", None);
    names(&image, 5000, |n| format!("{n:0250}").into_bytes());
    assert!(image.ask("htree_dump /dir").contains("Indirect levels: 1"));
}

#[test]
fn too_many_names_for_an_index_are_a_list() {
    let image = Image::make("-t ext4 -O ^large_dir -b 1024 -N 70000", "200M", None);
    names(&image, 60_000, |n| format!("{n:0250}").into_bytes());
    assert!(image.ask("stat /dir").contains("Flags: 0x80000"));
}

#[test]
fn more_subfolders_than_a_link_count_holds() {
    let image = Image::make("-t ext4 -N 70000", "400M", None);
    let mut editor = edit(&image.path());
    editor.make_directory(b"/dir", &Metadata::default()).unwrap();
    for n in 0..65_001 {
        let path = format!("/dir/{n}");
        editor
            .make_directory(path.as_bytes(), &Metadata::default())
            .unwrap();
    }
    editor.finish().unwrap();
    image.check();
    assert!(image.ask("stat /dir").contains("Links: 1 "));
    let mut editor = edit(&image.path());
    for n in 0..10 {
        editor.remove(format!("/dir/{n}").as_bytes()).unwrap();
    }
    editor.finish().unwrap();
    image.check();
}
