//! Extended attributes: sets of them, each stored once, and what becomes of access control lists.
//!
//! squashfs knows three namespaces: `user`, `trusted` and `security`. An access control list (`system.posix_acl_access`) has no
//! place, and to drop it alone would hand out rights: where there is one, the group bits of the mode are its mask, and an
//! entry may deny somebody what others have. So the mode that stays grants nobody more than the list did.

use firebrick_tree::Xattrs;
use zerocopy::IntoBytes;

use crate::format::{XATTR_PREFIXES, XattrEntry};

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// Attributes as they go to disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) count: u32,
    pub(crate) bytes: Vec<u8>,
}

/// What becomes of an inode's attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) set: Set,
    /// The mode that goes with them.
    pub(crate) mode: u16,
    /// Names that squashfs has no namespace for.
    pub(crate) left_out: Vec<Box<[u8]>>,
}

/// An access control list that is not in the kernel's form, with its length in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAnAcl(pub(crate) usize);

/// Packs attributes in the order of their names.
pub(crate) fn pack(xattrs: &Xattrs, mode: u16) -> Result<Packed, NotAnAcl> {
    let mut packed = Packed {
        mode,
        ..Packed::default()
    };
    for (full_name, value) in xattrs {
        let Some((index, name)) = split_name(full_name) else {
            let mut says_more = true;
            if **full_name == *ACL_ACCESS {
                let narrowed = narrow(mode, value).ok_or(NotAnAcl(value.len()))?;
                (packed.mode, says_more) = narrowed;
            }
            if says_more {
                packed.left_out.push(full_name.clone());
            }
            continue;
        };
        // Names have at most 255 bytes in Linux, values 64 KiB; neither comes longer out of a tar that is within limits.
        let (Ok(size), Ok(value_size)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
            packed.left_out.push(full_name.clone());
            continue;
        };
        let entry = XattrEntry {
            entry_type: index.into(),
            size: size.into(),
        };
        packed.set.count += 1;
        packed.set.bytes.extend_from_slice(entry.as_bytes());
        packed.set.bytes.extend_from_slice(name);
        packed.set.bytes.extend(value_size.to_le_bytes());
        packed.set.bytes.extend_from_slice(value);
    }
    Ok(packed)
}

fn split_name(full_name: &[u8]) -> Option<(u16, &[u8])> {
    let (index, rest) = XATTR_PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, full_name.strip_prefix(*prefix)?)))?;
    (!rest.is_empty()).then_some((index, rest))
}

/// The mode without an access control list, and whether the list said more than the mode.
///
/// The value: `u32` version 2, then entries of `u16` tag, `u16` permissions, `u32` id
/// (`include/uapi/linux/posix_acl_xattr.h`).
fn narrow(mode: u16, acl: &[u8]) -> Option<(u16, bool)> {
    let (version, entries) = acl.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return None;
    }
    let (mut mask, mut owning_group, mut users, mut groups, mut others) = (7, 7, 7, 7, mode & 7);
    let mut named = false;
    for [tag_low, tag_high, low, high, ..] in entries {
        let bits = u16::from_le_bytes([*low, *high]) & 7;
        match u16::from_le_bytes([*tag_low, *tag_high]) {
            0x01 => {}
            0x02 => (users, named) = (users & bits, true),
            0x04 => owning_group = bits,
            0x08 => (groups, named) = (groups & bits, true),
            0x10 => mask = bits,
            0x20 => others &= bits,
            _ => return None,
        }
    }
    if !named {
        // The owning group has what the list and its mask say; nothing is lost but the mask itself.
        return Some((with(mode, owning_group & mask, others), false));
    }
    // Whoever had an entry is one of the owning group, or of the others, from now on. The mask bounds named entries, too.
    let group = owning_group & mask & users;
    Some((with(mode, group, others & users & groups & mask), true))
}

fn with(mode: u16, group: u16, others: u16) -> u16 {
    (mode & !0o77) | (group << 3) | others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, bits) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(7_u32.to_le_bytes());
        }
        value
    }

    #[test]
    fn without_its_list_a_file_grants_nobody_more() {
        // /var/log/journal: the group adm may read what everybody may.
        let journal = acl(&[(1, 7), (4, 5), (8, 5), (16, 5), (32, 5)]);
        assert_eq!(narrow(0o2755, &journal), Some((0o2755, true)));
        // The mask stands in the mode; the owning group has less.
        let wide = acl(&[(1, 6), (2, 6), (4, 4), (16, 6), (32, 0)]);
        assert_eq!(narrow(0o660, &wide), Some((0o640, true)));
        // One is denied what all others have.
        let denied = acl(&[(1, 6), (2, 0), (4, 4), (16, 4), (32, 4)]);
        assert_eq!(narrow(0o644, &denied), Some((0o600, true)));
        // A list that says what the mode says.
        assert_eq!(
            narrow(0o640, &acl(&[(1, 6), (4, 4), (32, 0)])),
            Some((0o640, false))
        );
        for bad in [&b""[..], b"\x02\0\0\0\x01", b"\x03\0\0\0", &acl(&[(3, 0)])] {
            assert_eq!(narrow(0o640, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_without_a_namespace_are_named() {
        let names = ["user.a", "user.", "system.other", "trusted.b", "security.c"];
        let xattrs: Xattrs = names
            .iter()
            .map(|name| (name.as_bytes().into(), b"v"[..].into()))
            .collect();
        let packed = pack(&xattrs, 0o644).unwrap();
        assert_eq!(packed.set.count, 3);
        assert_eq!(packed.left_out, [b"system.other"[..].into(), b"user."[..].into()]);
        assert_eq!(
            packed.set.bytes,
            b"\x02\0\x01\0c\x01\0\0\0v\x01\0\x01\0b\x01\0\0\0v\0\0\x01\0a\x01\0\0\0v"
        );
    }
}
