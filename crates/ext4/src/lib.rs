//! Plans, writes and reads ext4 filesystems. No mount, no root, no OCI.
//!
//! - [`format`]: the on-disk structures, nothing else;
//! - [`checksum`]: CRC-32C as ext4 chains it.
#![forbid(unsafe_code)]

pub mod checksum;
#[expect(
    missing_docs,
    reason = "the names are the kernel's, documented where each structure links to"
)]
pub mod format;
