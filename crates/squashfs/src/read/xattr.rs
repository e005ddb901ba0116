//! Extended attributes.

use firebrick_tree::Xattrs;
use zerocopy::FromBytes as _;

use super::Filesystem;
use super::ReadAt;
use super::error::{ReadError, corrupt};
use super::inode::Inode;
use crate::format::{SQUASHFS_XATTR_VALUE_OOL, XATTR_PREFIXES, XattrEntry, XattrId, XattrIdTable};

/// Longest value in Linux, in bytes.
const VALUE_MAX: u32 = 65536;
const WHAT: &str = "a set of extended attributes";

impl<R: ReadAt> Filesystem<R> {
    /// An inode's extended attributes by their full names.
    ///
    /// # Errors
    /// Corrupt where they are; unsupported for a namespace that has no name.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        let mut xattrs = Xattrs::new();
        let Some(number) = inode.xattr else {
            return Ok(xattrs);
        };
        let table_at = self.geometry.xattr_table.unwrap_or(u64::MAX);
        let wrong = |fault| corrupt(WHAT, table_at, fault);
        let mut bytes = [0; 16];
        self.read_bytes(table_at, &mut bytes, WHAT)?;
        let table = XattrIdTable::read_from_bytes(&bytes).map_err(|_| wrong("it is cut off"))?;
        if number >= table.xattr_ids.get() {
            return Err(wrong("an inode names one behind the end of the table"));
        }
        let list = table_at.saturating_add(16);
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let record = self.table_entry::<16>(list, place, WHAT)?;
        let id = XattrId::read_from_bytes(&record).map_err(|_| wrong("it is cut off"))?;
        let start = table.xattr_table_start.get();
        let at = |reference: u64| {
            let offset = u16::try_from(reference & 0xffff).unwrap_or(u16::MAX);
            self.cursor(start.saturating_add(reference >> 16), offset, table_at, WHAT)
        };
        let mut cursor = at(id.xattr.get())?;
        for _ in 0..id.count.get() {
            let entry: XattrEntry = cursor.take()?;
            let kind = entry.entry_type.get();
            let prefix = XATTR_PREFIXES.iter().find(|(index, _)| *index == kind & 0xff);
            let Some((_, prefix)) = prefix else {
                let feature = format!("namespace {} of extended attributes", kind & 0xff);
                return Err(ReadError::Unsupported { feature });
            };
            let rest = cursor.take_bytes(entry.size.get().into())?;
            let len = cursor.take_u32()?;
            let value = match kind & SQUASHFS_XATTR_VALUE_OOL {
                0 if len <= VALUE_MAX => cursor.take_bytes(usize::try_from(len).unwrap_or_default())?,
                // What stands here is the place of the value.
                _ if kind & SQUASHFS_XATTR_VALUE_OOL != 0 && len == 8 => {
                    let place = cursor.take_bytes(8)?;
                    let place = <[u8; 8]>::try_from(place).map_err(|_| wrong("it is cut off"))?;
                    let mut elsewhere = at(u64::from_le_bytes(place))?;
                    match elsewhere.take_u32()? {
                        len @ 0..=VALUE_MAX => {
                            elsewhere.take_bytes(usize::try_from(len).unwrap_or_default())?
                        }
                        _ => return Err(wrong("a value is longer than values are")),
                    }
                }
                _ => return Err(wrong("a value is longer than values are")),
            };
            let name = [*prefix, &rest].concat();
            if xattrs.insert(name.into(), value.into()).is_some() {
                return Err(wrong("a name comes twice"));
            }
        }
        Ok(xattrs)
    }
}
