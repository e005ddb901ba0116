//! What can be wrong with a layer.

use std::io;

use firebrick_tree::PathError;

/// Why a layer could not be scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The tar is wrong: retrying cannot help.
    #[error("tar header at byte {offset} is not valid")]
    Corrupt {
        /// Where in the uncompressed tar.
        offset: u64,
        /// What is wrong.
        source: TarError,
    },
    /// The tar may be right, but holds something that a filesystem image cannot.
    #[error("entry {path:?} at byte {offset} has type {typeflag:?}, which is not supported")]
    Unsupported {
        /// The entry.
        path: String,
        /// Where in the uncompressed tar.
        offset: u64,
        /// The tar type flag.
        typeflag: char,
    },
    /// A bound of [`crate::Limits`] was reached.
    #[error("there are more than {limit} {what} up to this layer")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The stream ended inside an entry.
    #[error("layer ends at byte {offset}, in the middle of an entry")]
    Truncated {
        /// Length of what there is of the uncompressed tar.
        offset: u64,
    },
    /// The bytes could not be read or decompressed. The cause is `source`.
    #[error("cannot read the layer past byte {offset} of its tar")]
    Read {
        /// How far the uncompressed tar was read.
        offset: u64,
        /// What happened.
        source: io::Error,
    },
    /// The region's bytes could not be written. The cause is `source`.
    #[error("cannot write file contents")]
    Write {
        /// What happened.
        source: io::Error,
    },
}

/// What is wrong with a tar header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The header's checksum does not fit its bytes.
    #[error("checksum is {actual:o}, the header says {expected:o}: this is not a tar file, or it is damaged")]
    Checksum {
        /// Sum of the bytes.
        actual: u64,
        /// What the header says.
        expected: u64,
    },
    /// A number that is neither octal nor base-256, or does not fit.
    #[error("field {field} holds {value:?}, which is not a number in range")]
    Number {
        /// Name of the field or PAX keyword.
        field: &'static str,
        /// Its bytes, readable.
        value: String,
    },
    /// A PAX extended header that does not follow POSIX.
    #[error("extended header is malformed near {near:?}")]
    Pax {
        /// The bytes in question, readable and cut.
        near: String,
    },
    /// An extended header, long name or sparse map of absurd length.
    #[error("{what} of {len} bytes, at most {limit} are taken")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The bound.
        limit: u64,
    },
    /// A path that no image may hold.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A whiteout that names nothing.
    #[error("whiteout {path:?} names nothing")]
    Whiteout {
        /// The path as it stands.
        path: String,
    },
    /// A symbolic link's target must have 1 to 4095 bytes, none of them NUL.
    #[error(
        "symbolic link {path:?} has a target of {len} bytes, from 1 to 4095 are possible, none of them NUL"
    )]
    SymlinkTarget {
        /// The link.
        path: String,
        /// Length of the target in bytes.
        len: usize,
    },
    /// A sparse map whose parts overlap, run backwards, or do not add up.
    #[error("sparse map of {path:?} is inconsistent: {why}")]
    Sparse {
        /// The file.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A single block of zeros where the archive's end has two.
    #[error("a lone block of zeros is followed by more entries")]
    LoneZeroBlock,
    /// An extended header with nothing after it.
    #[error("an extended header is not followed by an entry")]
    Dangling,
    /// An access control list that is not understood.
    #[error("access control list {text:?} is not understood: expected entries like \"user:1000:rw-\"")]
    Acl {
        /// The text.
        text: String,
    },
    /// Extended attribute names have 1 to 255 bytes after their namespace.
    #[error("extended attribute name {name:?} is not valid")]
    XattrName {
        /// The name.
        name: String,
    },
}
