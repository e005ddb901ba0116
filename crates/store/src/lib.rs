//! Images as content-addressed chunks, kept and sent once, in a folder, an object store or a registry.
#![forbid(unsafe_code)]

mod backend;
mod bundle;
mod cache;
mod cut;
mod download;
mod error;
mod fetch;
mod folder;
mod image;
mod index;
mod known;
mod layout;
mod lazy;
mod local;
mod manifest;
mod name;
mod objects;
mod pack;
mod parallel;
mod seal;
mod store;
mod table;
mod upload;

pub use backend::{Backend, Replaced};
pub use cache::TableCache;
pub use cut::{BLOCK_LEN, Cuts, Piece, cut};
pub use download::{Download, Downloaded};
pub use error::StoreError;
pub use folder::Folder;
pub use image::Image;
pub use index::Published;
pub use layout::Layout;
pub use lazy::{Extent, Lazy, LazyCounts, LazyOptions};
pub use local::LocalImage;
pub use manifest::{ARTIFACT, About, Config, Descriptor};
pub use name::{Name, ParseNameError, Reference, Tag, Tagged};
pub use objects::{Entry as ObjectEntry, ObjectError, Objects, Swap, Version};
pub use seal::{BadChunk, Seal};
pub use store::{Listener, Progress, Store};
pub use table::{Entry, Locator, Root, Segment};
pub use upload::{Upload, Uploaded};
