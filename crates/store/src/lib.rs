//! Images as content-addressed chunks, kept and sent once, in a folder, an object store or a registry.
#![forbid(unsafe_code)]

mod backend;
mod bundle;
mod cut;
mod error;
mod folder;
mod index;
mod known;
mod layout;
mod manifest;
mod name;
mod objects;
mod pack;
mod seal;
mod table;

pub use backend::{Backend, Replaced};
pub use cut::{BLOCK_LEN, Cuts, Piece, cut};
pub use error::StoreError;
pub use folder::Folder;
pub use index::Published;
pub use layout::Layout;
pub use manifest::{ARTIFACT, About, Config, Descriptor};
pub use name::{Name, ParseNameError, Reference, Tag, Tagged};
pub use objects::{Entry as ObjectEntry, ObjectError, Objects, Swap, Version};
pub use seal::{BadChunk, Seal};
pub use table::{Entry, Locator, Root, Segment};
