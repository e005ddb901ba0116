//! Directory listings: headers and entries, and the index of large ones.
//!
//! ```text
//! ┌────────┬───────┬───────┬─┄┄─┬────────┬───────┬─┄┄
//! │ header │ entry │ entry │    │ header │ entry │      at most 256 entries behind a header, in the order of their names' bytes
//! └────────┴───────┴───────┴─┄┄─┴────────┴───────┴─┄┄
//! ```
//!
//! Entries behind one header have their inodes in one metadata block, with numbers near the header's. An index names a
//! header about every 8 KiB, so that a name is found without reading all.

use zerocopy::IntoBytes;

use crate::format::{DirEntry, DirHeader, SQUASHFS_METADATA_SIZE};

/// Most entries behind one header.
const ENTRIES_MAX: usize = 256;

/// Bytes of names and entries that a directory may have; far fewer headers and index entries than can be counted follow.
pub(crate) const LISTING_MAX: u64 = 256 << 20;

/// A name and what it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a [u8],
    /// The inode's number.
    pub(crate) number: u32,
    /// Where the inode lies: block and offset in one number.
    pub(crate) reference: u64,
    /// Its type, in the basic form.
    pub(crate) inode_type: u16,
}

/// A directory as it goes to the table.
#[derive(Debug, Default)]
pub(crate) struct Listing<'a> {
    pub(crate) bytes: Vec<u8>,
    /// Where headers start, in bytes from the start of the listing, with the first name behind each.
    pub(crate) index: Vec<(u32, &'a [u8])>,
}

/// The most bytes that entries of these names take, with a header each.
pub(crate) fn bound<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    names
        .map(|name| (name.len() + size_of::<DirEntry>() + size_of::<DirHeader>()) as u64)
        .sum()
}

/// Lays out entries, which come in the order of their names' bytes and within [`LISTING_MAX`].
pub(crate) fn listing<'a>(entries: &[Named<'a>]) -> Listing<'a> {
    let mut listing = Listing::default();
    let mut rest = entries;
    let mut indexed = 0;
    while let Some(first) = rest.first() {
        let at = listing.bytes.len();
        if at - indexed > SQUASHFS_METADATA_SIZE / 2 {
            indexed = at;
            let at = u32::try_from(at).expect("listings are within LISTING_MAX");
            listing.index.push((at, first.name));
        }
        let count = run_len(rest, at - indexed);
        let (run, later) = rest.split_at(count);
        rest = later;
        put_run(&mut listing.bytes, first, run);
    }
    listing
}

/// How many entries can stand behind the first one's header, which starts `at` bytes behind what the index names last.
fn run_len(entries: &[Named<'_>], at: usize) -> usize {
    let Some(first) = entries.first() else {
        return 0;
    };
    let mut end = at + size_of::<DirHeader>();
    entries
        .iter()
        .take(ENTRIES_MAX)
        .take_while(|entry| {
            end += size_of::<DirEntry>() + entry.name.len();
            let near = i16::try_from(i64::from(entry.number) - i64::from(first.number)).is_ok();
            let is_first = entry.name == first.name;
            is_first
                || (near && entry.reference >> 16 == first.reference >> 16 && end <= SQUASHFS_METADATA_SIZE)
        })
        .count()
}

fn put_run(out: &mut Vec<u8>, first: &Named<'_>, run: &[Named<'_>]) {
    let narrow = |value: u64| u32::try_from(value).expect("positions in a table have 32 bits");
    let header = DirHeader {
        count: narrow(run.len() as u64 - 1).into(),
        start_block: narrow(first.reference >> 16).into(),
        inode_number: first.number.into(),
    };
    out.extend_from_slice(header.as_bytes());
    for entry in run {
        let fields = DirEntry {
            offset: ((entry.reference & 0xffff) as u16).into(),
            // The difference, signed, within 16 bits.
            inode_number: (entry.number.wrapping_sub(first.number) as u16).into(),
            entry_type: entry.inode_type.into(),
            size: u16::try_from(entry.name.len() - 1)
                .expect("names have 1 to 255 bytes")
                .into(),
        };
        out.extend_from_slice(fields.as_bytes());
        out.extend_from_slice(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[String]) -> Vec<Named<'_>> {
        (1..)
            .zip(names)
            .map(|(number, name)| Named {
                name: name.as_bytes(),
                number,
                reference: u64::from(number / 200) << 16,
                inode_type: 2,
            })
            .collect()
    }

    #[test]
    fn headers_end_at_blocks_counts_and_far_numbers() {
        let names: Vec<String> = (0..5).map(|n| format!("n{n}")).collect();
        let mut entries = named(&names);
        let one_header = listing(&entries).bytes.len();
        assert_eq!(one_header, 12 + 5 * 10);
        entries[2].number = 40_000;
        assert_eq!(listing(&entries).bytes.len(), one_header + 2 * 12);
        entries[2].number = 32_768;
        assert_eq!(listing(&entries).bytes.len(), one_header);
        entries[3].reference = 1 << 16;
        assert_eq!(listing(&entries).bytes.len(), one_header + 2 * 12);
        assert!(listing(&[]).bytes.is_empty());
    }

    #[test]
    fn an_index_names_a_header_every_few_kib() {
        let names: Vec<String> = (0..10_000).map(|n| format!("name-{n:06}")).collect();
        let entries = named(&names);
        let listing = listing(&entries);
        let mut last = 0;
        for (at, name) in &listing.index {
            assert!((1..=8192 + 4096).contains(&(at - last)), "{at} after {last}");
            last = *at;
            let at = *at as usize;
            assert_eq!(&listing.bytes[at + 20..at + 20 + name.len()], *name);
        }
        assert!(listing.bytes.len() - (last as usize) < 2 * 8192);
        assert!(listing.index.len() > 20);
    }
}
