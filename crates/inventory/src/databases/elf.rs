//! Finds a section of a program by its name.
//!
//! Format: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>

use super::Collector;
use crate::{InventoryError, NodeId};

/// Longest section that is read, in bytes.
const SECTION_MAX: usize = 8 << 20;

/// Longest table of names, in bytes.
const NAMES_MAX: usize = 1 << 20;

/// Where fields of the header and of sections lie: the two classes differ.
struct Class {
    wide: bool,
    /// `e_shoff`, `e_shentsize`; `e_shnum` and `e_shstrndx` follow that.
    table: usize,
    entry_size: usize,
    /// Length of a section header, and where `sh_offset` and `sh_size` lie in it.
    header_len: usize,
    offset: usize,
    size: usize,
}

const ELF32: Class = Class {
    wide: false,
    table: 0x20,
    entry_size: 0x2e,
    header_len: 40,
    offset: 0x10,
    size: 0x14,
};

const ELF64: Class = Class {
    wide: true,
    table: 0x28,
    entry_size: 0x3a,
    header_len: 64,
    offset: 0x18,
    size: 0x20,
};

impl Class {
    fn address(&self, bytes: &[u8], at: usize) -> Option<u64> {
        match self.wide {
            true => {
                let part = bytes.get(at..at.checked_add(8)?)?;
                Some(u64::from_le_bytes(part.try_into().ok()?))
            }
            false => u32_at(bytes, at).map(u64::from),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(part.try_into().ok()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

/// The bytes of a section of a little-endian program; `None` where there is no such thing.
pub(super) fn section(
    collector: &Collector<'_>,
    node: NodeId,
    wanted: &[u8],
) -> Result<Option<Vec<u8>>, InventoryError> {
    let head = collector.read_part(node, 0, 64)?;
    let class = match head.get(..6) {
        Some([0x7f, b'E', b'L', b'F', 1, 1]) => &ELF32,
        Some([0x7f, b'E', b'L', b'F', 2, 1]) => &ELF64,
        _ => return Ok(None),
    };
    let Some((table, count, names)) = header(class, &head) else {
        return Ok(None);
    };
    let headers = collector.read_part(node, table, count.saturating_mul(class.header_len))?;
    let place = |index: usize| {
        let header = headers.get(index.checked_mul(class.header_len)?..)?;
        let header = header.get(..class.header_len)?;
        let size = usize::try_from(class.address(header, class.size)?).ok()?;
        Some((u32_at(header, 0)?, class.address(header, class.offset)?, size))
    };
    let Some((_, names_at, names_len)) = place(names) else {
        return Ok(None);
    };
    let names = collector.read_part(node, names_at, names_len.min(NAMES_MAX))?;
    let found = (0..count).filter_map(place).find(|(name, ..)| {
        let rest = usize::try_from(*name).ok().and_then(|name| names.get(name..));
        rest.is_some_and(|rest| {
            rest.strip_prefix(wanted)
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    });
    match found {
        Some((_, at, len)) if len <= SECTION_MAX => collector.read_part(node, at, len).map(Some),
        _ => Ok(None),
    }
}

/// Where the section headers lie, how many there are, and which one holds the names.
fn header(class: &Class, head: &[u8]) -> Option<(u64, usize, usize)> {
    let table = class.address(head, class.table)?;
    let entry_size = u16_at(head, class.entry_size)?;
    let count = u16_at(head, class.entry_size.checked_add(2)?)?;
    let names = u16_at(head, class.entry_size.checked_add(4)?)?;
    (table != 0 && entry_size == class.header_len).then_some((table, count, names))
}
