//! The reader against filesystems that are not ours: `mke2fs` makes them, `debugfs` alters them, `e2fsck` judges them, and
//! `dumpe2fs` and the folder that they were made from say what must be read.

mod features;
mod foreign;
mod hostile;
#[expect(dead_code, reason = "the tests of edits and checks need more")]
mod image;
mod paths;
mod tree;
