//! Reading and writing tar: ustar, GNU and PAX, as container tools make them.
//!
//! - `header`: one 512-byte header block;
//! - `pax`: extended headers (`path`, `mtime`, `SCHILY.xattr.…`);
//! - `sparse`: the maps of GNU and PAX sparse files;
//! - `scan`: entries out of a stream;
//! - [`Writer`]: the small deterministic writer for layers of our own.
//!
//! Formats: POSIX `pax` (IEEE Std 1003.1, section "ustar Interchange Format" and "pax Extended Header"),
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>, and for Sparse formats
//! <https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html>.

mod acl;
mod header;
mod pax;
pub(crate) mod scan;
mod sparse;
mod write;

pub use write::{Writer, WriterEntry};
