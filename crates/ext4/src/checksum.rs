//! CRC-32C as ext4 uses it: chained, never inverted at the end.

/// `s_checksum_seed` of every filesystem that we write: "fire". Not the UUID's checksum, as is usual, so that metadata of
/// the same content has the same bytes in all of them.
pub(crate) const SEED: u32 = u32::from_le_bytes(*b"fire");

/// The checksum that a filesystem with `metadata_csum` keeps in every structure.
///
/// ext4 starts from all ones, feeds an identifying prefix (UUID, inode number, …) and then the structure with its
/// checksum field zero (`ext4_chksum` in `fs/ext4/ext4.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc(u32);

impl Crc {
    /// Starts from all ones.
    pub fn new() -> Crc {
        Crc(u32::MAX)
    }

    /// Starts from the seed of everything in the filesystems that we write ([`SEED`]).
    pub(crate) fn ours() -> Crc {
        Crc(SEED)
    }

    /// Starts from a seed that a filesystem keeps (`s_checksum_seed`).
    pub fn from_seed(seed: u32) -> Crc {
        Crc(seed)
    }

    /// Feeds bytes.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Crc {
        // The library inverts on the way in and out; ext4 does neither.
        Crc(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The checksum so far.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The seed of everything that belongs to one inode.
    pub fn for_inode(self, number: u32, generation: u32) -> Crc {
        self.update(&number.to_le_bytes())
            .update(&generation.to_le_bytes())
    }
}

impl Default for Crc {
    fn default() -> Crc {
        Crc::new()
    }
}

/// CRC-16 as descriptors carried it before `metadata_csum` (`lib/crc16.c` in the kernel): reflected 0x8005.
pub(crate) fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xa001 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_check_value() {
        // The catalogue's check value of CRC-16/ARC.
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }

    #[test]
    fn published_vector_and_chaining() {
        // RFC 3720, B.4: 32 bytes of zeros give 0x8a9136aa, inverted at the end.
        assert_eq!(!Crc::new().update(&[0; 32]).value(), 0x8a91_36aa);
        assert_eq!(Crc::new().update(b"ab").update(b"c"), Crc::new().update(b"abc"));
        assert_eq!(
            Crc::from_seed(Crc::new().update(b"ab").value()).update(b"c"),
            Crc::new().update(b"abc")
        );
    }
}
