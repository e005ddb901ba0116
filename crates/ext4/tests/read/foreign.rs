//! Shapes of filesystems that `mke2fs` makes, read back and compared with the folder they were made from.

use crate::image::Image;
use crate::tree::{assert_same, folder, ours, varied};

fn round_trip(arguments: &str) {
    let source = varied();
    let image = Image::make(arguments, "48M", Some(source.path()));
    assert_same(&ours(&image.open()), &folder(source.path()));
}

#[test]
fn defaults() {
    round_trip("-t ext4");
}

#[test]
fn small_blocks() {
    round_trip("-t ext4 -b 1024");
}

#[test]
fn ext2() {
    round_trip("-t ext2 -b 1024");
}
