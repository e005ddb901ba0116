//! Images as content-addressed chunks, kept and sent once, in a folder, an object store or a registry.
#![forbid(unsafe_code)]

mod objects;

pub use objects::{Entry, ObjectError, Objects, Swap, Version};
