//! A tar of the guest's on its way to `tar`, which keeps in memory whatever a name is long and a sparse file has pieces: those of
//! hostile lengths end here.
//!
//! An agent sends GNU's form. Nothing else passes, so that both count the same bytes as headers and contents.

use std::io::{self, Read};

use tar::Header;

const BLOCK_BYTES: usize = 512;

/// The longest name, or target of a link, in bytes. Linux takes 4096 at once; a name may be put together of several.
const MAX_NAME_BYTES: u64 = 1 << 20;

/// See the module. What it gives are the bytes that it reads.
pub(super) struct Entries<R> {
    from: R,
    block: [u8; BLOCK_BYTES],
    /// How much of the block is not given yet: its end.
    unread: usize,
    /// What comes before the next header.
    content_bytes: u64,
}

impl<R: Read> Entries<R> {
    pub(super) fn of(from: R) -> Entries<R> {
        Entries {
            from,
            block: [0; BLOCK_BYTES],
            unread: 0,
            content_bytes: 0,
        }
    }

    /// Reads the next header, or what there is of it.
    fn take_header(&mut self) -> io::Result<()> {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.from.read(&mut self.block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        // Cut short, it is of no use to anybody; it is given from the block's end.
        self.block.copy_within(..filled, BLOCK_BYTES - filled);
        self.unread = filled;
        if filled == BLOCK_BYTES {
            self.content_bytes = content_bytes(Header::from_byte_slice(&self.block))?;
        }
        Ok(())
    }
}

/// How many bytes come behind a header that passes.
fn content_bytes(header: &Header) -> io::Result<u64> {
    if header.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let kind = header.entry_type();
    if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() || kind.is_gnu_sparse() {
        return Err(invalid("the guest's tar is not in GNU's form".to_owned()));
    }
    let bytes = header.entry_size()?;
    if (kind.is_gnu_longname() || kind.is_gnu_longlink()) && bytes > MAX_NAME_BYTES {
        return Err(invalid(format!(
            "the guest's tar has a name of {bytes} bytes: at most {MAX_NAME_BYTES} can be taken"
        )));
    }
    bytes
        .checked_next_multiple_of(512)
        .ok_or_else(|| invalid(format!("the guest's tar has an entry of {bytes} bytes")))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.unread == 0 && self.content_bytes == 0 {
            self.take_header()?;
        }
        if self.unread > 0 {
            let count = into.len().min(self.unread);
            let at = BLOCK_BYTES - self.unread;
            into[..count].copy_from_slice(&self.block[at..at + count]);
            self.unread -= count;
            return Ok(count);
        }
        let most = usize::try_from(self.content_bytes).unwrap_or(usize::MAX);
        let most = into.len().min(most);
        let count = self.from.read(&mut into[..most])?;
        self.content_bytes -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_testkit::targets::mutate::{Random, mend_tar, mutate};
    use tar::{Builder, EntryType};

    /// A tar with a long name, contents and a link.
    fn plain() -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(1300);
        let name = "folder/".repeat(60);
        builder
            .append_data(&mut header, format!("{name}file"), &[7; 1300][..])
            .unwrap();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", &name).unwrap();
        builder.into_inner().unwrap()
    }

    /// A header of that kind and length.
    fn header(kind: EntryType, bytes: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn an_honest_tar_passes_as_it_is() {
        let tar = plain();
        let mut passed = Vec::new();
        Entries::of(&tar[..]).read_to_end(&mut passed).unwrap();
        assert!(passed == tar);
        let names = |bytes: &[u8]| -> Vec<_> {
            let mut archive = tar::Archive::new(Entries::of(bytes));
            let entries = archive.entries().unwrap();
            entries
                .map(|entry| entry.unwrap().path().unwrap().into_owned())
                .collect()
        };
        assert_eq!(names(&tar).len(), 2);
    }

    #[test]
    fn names_without_end_are_not_read() {
        for (kind, bytes, passes) in [
            (EntryType::GNULongName, MAX_NAME_BYTES, true),
            (EntryType::GNULongName, MAX_NAME_BYTES + 1, false),
            (EntryType::GNULongLink, u64::MAX / 2, false),
            (EntryType::XHeader, 20, false),
            (EntryType::XGlobalHeader, 20, false),
            (EntryType::GNUSparse, 0, false),
            (EntryType::Regular, u64::MAX, false),
        ] {
            let sent = header(kind, bytes);
            let mut endless = Entries::of(sent.chain(io::repeat(b'x')));
            let read = endless.read_exact(&mut [0; 4096]);
            assert_eq!(read.is_ok(), passes, "{kind:?} {bytes}");
        }
    }

    #[test]
    fn damaged_tars_are_not_changed() {
        let mut random = Random::new(1);
        for _ in 0..2000 {
            let mut sent = plain();
            mutate(&mut sent, &mut random);
            mend_tar(&mut sent);
            let mut passed = Vec::new();
            let read = Entries::of(&sent[..]).read_to_end(&mut passed);
            assert!(sent.starts_with(&passed));
            assert_eq!(read.is_ok(), passed.len() == sent.len());
            for entry in tar::Archive::new(Entries::of(&sent[..])).entries().unwrap() {
                let Ok(entry) = entry else { break };
                assert!(entry.path_bytes().len() as u64 <= MAX_NAME_BYTES);
            }
        }
    }
}
