//! Joins source, layers, tree and filesystem into an image file.
//!
//! ```text
//! blob ─► read ahead ─► decompress ─┬─► diff ID
//! (thread) digest checked  (thread) │   (thread)
//!                                   └─► scan ─► write to the layer's region ─► disk
//!                                       (here)  (thread, O_DIRECT where it can)
//! all layers scanned ─► merge ─► plan ─► punch hidden bytes ─► metadata ─► fsync ─► name
//! ```
//!
//! Every file byte is decompressed once and written once, straight to its place; for squashfs, to a file without a name,
//! from which it is compressed once all layers are merged, so that no hidden byte is; and for the smallest ext4, so that none
//! leaves room. The next layer is decompressed ahead into a bounded buffer while one is being written. The image gets its name
//! only when it is whole.
//!
//! An image that is to be changed is copied first ([`ImageCopy`]).
//!
//! [`flatten`] ends otherwise: the merged tree becomes one tar, for whoever needs its files and not an image.
#![forbid(unsafe_code)]

mod ahead;
mod compact;
mod copy;
mod error;
mod flatten;
mod fullness;
mod image_file;
mod key;
mod place;
mod read_back;
mod request;
mod run;
mod squashfs;
mod stream;

pub use copy::ImageCopy;
pub use error::BuildError;
pub use flatten::{Flatten, Flattened, diff_ids, flatten, made_over};
pub use fullness::Fullness;
pub use key::{BuildKey, build_key};
pub use place::{Place, behind_links};
pub use request::{Customise, Event, Filesystem, LayerReport, Merged, Report, Request};
pub use run::build;
