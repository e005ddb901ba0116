//! Changes of images, ours and those of `mke2fs` with many sets of features. `e2fsck` judges each; `debugfs` and our own
//! reader say what is in them.

mod hostile;
#[path = "../read/image.rs"]
#[expect(dead_code, reason = "made for more than these tests need")]
mod image;
mod limits;
mod model;
mod names;
mod random;
mod refusals;
