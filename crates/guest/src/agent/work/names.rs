//! The names in folders: all of a folder's at once, or, where it may be any number, a *piece* at a time, in order.

use alloc::collections::BTreeSet;
use alloc::ffi::CString;
use alloc::vec::{self, Vec};
use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

/// What a name costs besides its letters.
const NAME_BYTES: usize = 64;

/// So much all names of a folder are at most that are held at once.
const MAX_BYTES: usize = 3 << 20;

/// The names in a folder, without `.` and `..`, sorted; [`Errno::OVERFLOW`] when there are more than `limit`, or more than [`MAX_BYTES`].
pub(in super::super) fn names(folder: &OwnedFd, limit: usize) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    let mut bytes = 0usize;
    for_each(folder, |name| {
        bytes = bytes.saturating_add(name.to_bytes().len());
        if names.len() >= limit || bytes > MAX_BYTES {
            return Err(Errno::OVERFLOW);
        }
        names.push(name.into());
        Ok(())
    })?;
    names.sort();
    Ok(names)
}

fn for_each(folder: &OwnedFd, mut take: impl FnMut(&CStr) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut buffer = [core::mem::MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            take(name)?;
        }
    }
    Ok(())
}

/// The names in a folder one by one, sorted. A folder that does not fit into a piece is read once for each.
#[derive(Debug)]
pub(super) struct Pieces {
    limit_bytes: usize,
    piece: vec::IntoIter<CString>,
    held_bytes: usize,
    /// The name that was given last: those after it are still to come.
    last: Option<CString>,
    /// Whether the folder has to be read once more after this piece.
    more: bool,
}

impl Pieces {
    /// Nothing is read yet.
    pub(super) fn new(limit_bytes: usize) -> Pieces {
        Pieces {
            limit_bytes,
            piece: Vec::new().into_iter(),
            held_bytes: 0,
            last: None,
            more: true,
        }
    }

    /// The next name in the folder, which must always be the same one.
    pub(super) fn next(&mut self, folder: &OwnedFd) -> Result<Option<CString>, Errno> {
        if self.piece.len() == 0 && self.more {
            self.read(folder)?;
        }
        let name = self.piece.next();
        if name.is_some() {
            self.last.clone_from(&name);
        }
        Ok(name)
    }

    /// The memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Gives the memory back, and reads the rest of the names again when the next is asked for.
    pub(super) fn forget(&mut self) {
        self.more |= self.piece.len() > 0;
        self.piece = Vec::new().into_iter();
        self.held_bytes = 0;
    }

    fn read(&mut self, folder: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::seek(folder, SeekFrom::Start(0))?;
        let mut first = BTreeSet::<CString>::new();
        let (mut bytes, mut more) = (0usize, false);
        let cost = |name: &CStr| name.count_bytes().saturating_add(NAME_BYTES);
        for_each(folder, |name| {
            let is_given = self.last.as_deref().is_some_and(|last| name <= last);
            let is_beyond = more && first.last().is_some_and(|last| name > last.as_c_str());
            if is_given || is_beyond || !first.insert(name.into()) {
                return Ok(());
            }
            bytes = bytes.saturating_add(cost(name));
            while bytes > self.limit_bytes && first.len() > 1 {
                if let Some(last) = first.pop_last() {
                    bytes = bytes.saturating_sub(cost(&last));
                    more = true;
                }
            }
            Ok(())
        })?;
        self.piece = first.into_iter().collect::<Vec<_>>().into_iter();
        self.held_bytes = bytes;
        self.more = more;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::string::String;

    #[test]
    fn pieces_give_every_name_once_and_in_order() {
        let place = tempfile::tempdir().expect("a folder");
        let mut expected: Vec<String> = (0..500).map(|n| std::format!("{}-{n}", n * 7919 % 500)).collect();
        for name in &expected {
            std::fs::write(place.path().join(name), "").expect("a file");
        }
        expected.sort();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = rustix::fs::open(place.path(), flags, Mode::empty()).expect("the folder");
        for (limit_bytes, forgets) in [
            (1, false),
            (1000, false),
            (1000, true),
            (1 << 20, false),
            (1 << 20, true),
        ] {
            let mut pieces = Pieces::new(limit_bytes);
            let mut found = Vec::new();
            while let Some(name) = pieces.next(&folder).expect("a name") {
                assert!(pieces.held_bytes() <= limit_bytes.max(100));
                found.push(name.into_string().expect("text"));
                if forgets && found.len() % 3 == 0 {
                    pieces.forget();
                    assert_eq!(pieces.held_bytes(), 0);
                }
            }
            assert_eq!(found, expected, "{limit_bytes} {forgets}");
            assert_eq!(pieces.next(&folder), Ok(None));
        }
    }
}
