//! POSIX access control lists: from tar's text to the form that `getxattr(2)` gives.
//!
//! The binary form is the kernel's `struct posix_acl_xattr_header` and `posix_acl_xattr_entry`
//! (`include/uapi/linux/posix_acl_xattr.h`): version 2, then tag, permissions and id of each entry, little endian.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use super::header::readable;
use crate::error::TarError;

const POSIX_ACL_XATTR_VERSION: u32 = 2;
const ACL_USER_OBJ: u16 = 0x01;
const ACL_USER: u16 = 0x02;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_GROUP: u16 = 0x08;
const ACL_MASK: u16 = 0x10;
const ACL_OTHER: u16 = 0x20;
const ACL_UNDEFINED_ID: u32 = u32::MAX;

/// A list that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AccessList {
    /// The extended attribute's value.
    pub(crate) xattr: Vec<u8>,
    /// Whether it says no more than permission bits do.
    pub(crate) is_minimal: bool,
    /// The permission bits that a file with this list has, as far as the list says: the group's are the mask.
    pub(crate) mode: Option<u16>,
}

/// `user::rw-,user:name:r--:1000,group::r--,mask::r--,other::r--`: entries separated by commas or lines. A name
/// needs its number as the fourth field (star, bsdtar), or must be a number itself: an image's names mean nothing here.
pub(crate) fn from_text(text: &[u8]) -> Result<AccessList, TarError> {
    let error = || TarError::Acl { text: readable(text) };
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    let parts = text
        .split(|byte| matches!(byte, b',' | b'\n'))
        .map(<[u8]>::trim_ascii);
    for part in parts.filter(|part| !part.is_empty() && !part.starts_with(b"#")) {
        let part = std::str::from_utf8(part).map_err(|_| error())?;
        let fields: Vec<&str> = part.split(':').collect();
        let [tag, name, permissions, number @ ..] = fields.as_slice() else {
            return Err(error());
        };
        let id = || number.first().unwrap_or(name).parse::<u32>().map_err(|_| error());
        let (tag, id) = match (*tag, name.is_empty()) {
            ("user" | "u", true) => (ACL_USER_OBJ, ACL_UNDEFINED_ID),
            ("user" | "u", false) => (ACL_USER, id()?),
            ("group" | "g", true) => (ACL_GROUP_OBJ, ACL_UNDEFINED_ID),
            ("group" | "g", false) => (ACL_GROUP, id()?),
            ("mask" | "m", _) => (ACL_MASK, ACL_UNDEFINED_ID),
            ("other" | "o", _) => (ACL_OTHER, ACL_UNDEFINED_ID),
            _ => return Err(error()),
        };
        entries.push((tag, id, permission_bits(permissions).ok_or_else(error)?));
    }
    // The kernel wants them by tag, then by id.
    entries.sort_unstable();
    let of = |wanted| {
        entries
            .iter()
            .find(|(tag, ..)| *tag == wanted)
            .map(|(.., bits)| *bits)
    };
    let group = of(ACL_MASK).or(of(ACL_GROUP_OBJ));
    let mode = of(ACL_USER_OBJ)
        .zip(group)
        .zip(of(ACL_OTHER))
        .map(|((user, group), other)| (user << 6) | (group << 3) | other);
    let is_minimal = mode.is_some() && entries.len() == 3;
    let mut out = POSIX_ACL_XATTR_VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Ok(AccessList {
        xattr: out,
        is_minimal,
        mode,
    })
}

fn permission_bits(text: &str) -> Option<u16> {
    text.bytes().try_fold(0, |bits, letter| match letter {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_the_kernels_form() {
        let acl = from_text(b"user::rw-,other::r--,mask::r-x,user:lisa:r-x:502,group::r--").unwrap();
        let expected = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 5, 0, 0xf6, 1, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 5, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(acl.xattr, expected);
        assert_eq!(
            from_text(b"user:502:r-x\n").unwrap().xattr[4..],
            [2, 0, 5, 0, 0xf6, 1, 0, 0]
        );
    }

    /// As `setxattr` does it: acl(5), "correspondence between ACL entries and file permission bits".
    #[test]
    fn the_mask_is_the_groups_permission_bits() {
        for (text, mode, is_minimal) in [
            (
                "user::rw-,user:7:r-x,group::r--,mask::rwx,other::--x",
                Some(0o671),
                false,
            ),
            ("user::rwx,group::r-x,other::---", Some(0o750), true),
            ("user::rwx,group::r-x", None, false),
        ] {
            let list = from_text(text.as_bytes()).unwrap();
            assert_eq!((list.mode, list.is_minimal), (mode, is_minimal), "{text}");
        }
    }

    #[test]
    fn names_without_numbers_are_refused() {
        for bad in [&b"user:lisa:rwx"[..], b"user", b"user::rwz", b"\xff::r--"] {
            assert!(matches!(from_text(bad), Err(TarError::Acl { .. })));
        }
    }
}
