//! POSIX ACLs as `setfacl` writes them, and as the `system.posix_acl_*` attributes hold them.
//!
//! The attribute (version 2, `include/uapi/linux/posix_acl_xattr.h`): `u32` version, then entries of `u16` tag,
//! `u16` permissions, `u32` id, all little-endian, in the order owner, users, group, groups, mask, other.

use anyhow::{Context as _, bail};

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

/// Turns `u::rwx,u:1000:r--,g::r-x,m::rwx,o::---` into the attribute's value; the order is kept.
///
/// # Errors
/// If the text is not an ACL.
pub fn to_xattr(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in text.split(',') {
        let mut parts = entry.splitn(3, ':');
        let mut part = || {
            parts
                .next()
                .with_context(|| format!("{entry:?} has fewer than three parts"))
        };
        let (who, id, permissions) = (part()?, part()?, part()?);
        let tag: u16 = match (who, id.is_empty()) {
            ("u", true) => 0x01,
            ("u", false) => 0x02,
            ("g", true) => 0x04,
            ("g", false) => 0x08,
            ("m", true) => 0x10,
            ("o", true) => 0x20,
            _ => bail!("{entry:?} is not an entry of an ACL"),
        };
        let bits = permissions.bytes().zip(0..3).filter(|(byte, _)| *byte != b'-');
        let bits: u16 = bits.map(|(_, index)| 4 >> index).sum();
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(if id.is_empty() { NO_ID } else { id.parse()? }.to_le_bytes());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn acl_in_the_kernels_form() {
        // As `setfacl -m u:1000:rw-` on a file of mode 0640 gives it (getfattr -e hex).
        let expected =
            "0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000000ffffffff";
        let value = super::to_xattr("u::rw-,u:1000:rw-,g::r--,m::rw-,o::---").unwrap();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert!(super::to_xattr("m:7:rwx").is_err());
    }
}
