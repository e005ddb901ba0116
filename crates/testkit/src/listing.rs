//! What a directory tree looks like from outside: one [`Record`] a path.
//!
//! A [`Listing`] is what every judge in this crate yields (the reference merge, the kernel's mount, `ext4-view`,
//! an unpacked directory), so that any two of them can be compared by [`diff`].

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use firebrick_digest::Digest;

/// A point in time: seconds since 1970, and nanoseconds that always count forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds since 1970, rounded down; negative before.
    pub secs: i64,
    /// 0..1_000_000_000.
    pub nanos: u32,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.secs)?;
        if self.nanos != 0 {
            write!(f, ".{:09}", self.nanos)?;
        }
        Ok(())
    }
}

/// What a path is, with what belongs to that kind alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Length in bytes.
        len: u64,
        /// Digest of the content, holes read as zeros.
        digest: Digest,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    Char(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Type and what belongs to it.
    pub kind: Kind,
    /// Permission bits with set-id and sticky (12 bits).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Link count as `stat` shows it.
    pub nlink: u64,
    /// The first path (in byte order) of the same inode; the path itself where there is one name only.
    pub same_as: Vec<u8>,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Record {
    /// Checks that access, change and creation time, in this order, are the modification time.
    ///
    /// # Errors
    /// With the path and its times, if one is not.
    pub fn check_times(&self, path: &[u8], others: [Time; 3]) -> anyhow::Result<()> {
        let [atime, ctime, crtime] = others;
        anyhow::ensure!(
            others == [self.mtime; 3],
            "{} has other times than mtime={}: atime={atime} ctime={ctime} crtime={crtime}",
            shorten(path),
            self.mtime
        );
        Ok(())
    }
}

/// A tree by absolute path; the root is `/`.
pub type Listing = BTreeMap<Vec<u8>, Record>;

/// What a comparison leaves out, because one side cannot say it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignore {
    /// Link counts of all paths, and which paths share an inode.
    pub links: bool,
    /// Link counts of directories (not every filesystem counts them).
    pub dir_links: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Device numbers.
    pub rdev: bool,
    /// Modification times of directories.
    pub dir_mtimes: bool,
    /// Whether a special file is a socket or a named pipe.
    pub sockets: bool,
}

impl Ignore {
    /// Leaves nothing out.
    pub const NOTHING: Ignore = Ignore {
        links: false,
        dir_links: false,
        xattrs: false,
        rdev: false,
        dir_mtimes: false,
        sockets: false,
    };
    /// What `ext4-view` does not show.
    pub const EXT4_VIEW: Ignore = Ignore {
        links: true,
        xattrs: true,
        rdev: true,
        ..Ignore::NOTHING
    };
}

/// Bytes as text that can be read back: printable ASCII as it is, the rest as `\xHH`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => text.extend(['\\', char::from(byte)]),
            0x21..=0x7e => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail"),
        }
    }
    text
}

/// [`escape`], with the middle of long bytes left out.
fn shorten(bytes: &[u8]) -> String {
    if bytes.len() <= 80 {
        return escape(bytes);
    }
    let digest = Digest::of(bytes).short();
    format!("{}…({} bytes, {digest})", escape(&bytes[..24]), bytes.len())
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Dir => write!(f, "dir")?,
            Kind::File { len, digest } => write!(f, "file {len} {}", digest.short())?,
            Kind::Symlink(target) => write!(f, "symlink -> {}", shorten(target))?,
            Kind::Char(major, minor) => write!(f, "char {major}:{minor}")?,
            Kind::Block(major, minor) => write!(f, "block {major}:{minor}")?,
            Kind::Fifo => write!(f, "fifo")?,
            Kind::Socket => write!(f, "socket")?,
        }
        let Record {
            mode,
            uid,
            gid,
            mtime,
            nlink,
            ..
        } = self;
        write!(f, " {mode:04o} {uid}:{gid} mtime={mtime} nlink={nlink}")?;
        write!(f, " inode-of={}", shorten(&self.same_as))?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", shorten(name), shorten(value))?;
        }
        Ok(())
    }
}

/// The whole listing, one line a path.
pub fn dump(listing: &Listing) -> String {
    let mut text = String::new();
    for (path, record) in listing {
        writeln!(text, "{} {record}", shorten(path)).expect("writing to a String cannot fail");
    }
    text
}

/// Compares two listings.
///
/// # Errors
/// The differing paths, at most 40 of them: `-` what was expected, `+` what is there.
pub fn diff(expected: &Listing, actual: &Listing, ignore: &Ignore) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut count = 0_usize;
    let paths: std::collections::BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    for path in paths {
        let want = expected.get(path).map(|record| mask(record, path, ignore));
        let have = actual.get(path).map(|record| mask(record, path, ignore));
        if want == have {
            continue;
        }
        count += 1;
        if count > 40 {
            continue;
        }
        for (sign, side) in [('-', want), ('+', have)] {
            let line = side.map_or_else(|| "(absent)".to_owned(), |record| record.to_string());
            writeln!(text, "{sign} {} {line}", shorten(path)).expect("writing to a String cannot fail");
        }
    }
    anyhow::ensure!(
        count == 0,
        "{count} of {} paths differ (- expected, + actual):\n{text}",
        expected.len().max(actual.len())
    );
    Ok(())
}

/// `record` with everything that `ignore` names set to one value.
fn mask(record: &Record, path: &[u8], ignore: &Ignore) -> Record {
    let mut record = record.clone();
    let is_dir = record.kind == Kind::Dir;
    if ignore.links {
        record.nlink = 0;
        record.same_as = path.to_vec();
    }
    if ignore.dir_links && is_dir {
        record.nlink = 0;
    }
    if ignore.dir_mtimes && is_dir {
        record.mtime = Time::default();
    }
    if ignore.xattrs {
        record.xattrs.clear();
    }
    if ignore.sockets && record.kind == Kind::Socket {
        record.kind = Kind::Fifo;
    }
    if ignore.rdev {
        match &mut record.kind {
            Kind::Char(major, minor) | Kind::Block(major, minor) => (*major, *minor) = (0, 0),
            _ => {}
        }
    }
    record
}

/// Takes an empty `/lost+found` out of `listing`, as if the image had none.
///
/// The folder belongs to the filesystem, not to the container, so the reference never has it.
pub fn without_lost_and_found(mut listing: Listing) -> Listing {
    let prefix = b"/lost+found/".as_slice();
    let used = listing
        .range(prefix.to_vec()..)
        .next()
        .is_some_and(|(path, _)| path.starts_with(prefix));
    if !used
        && listing.remove(b"/lost+found".as_slice()).is_some()
        && let Some(root) = listing.get_mut(b"/".as_slice())
    {
        root.nlink = root.nlink.saturating_sub(1);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u16) -> Record {
        Record {
            kind: Kind::File {
                len: 2,
                digest: Digest::of(b"hi"),
            },
            mode,
            uid: 0,
            gid: 0,
            mtime: Time { secs: -1, nanos: 5 },
            nlink: 1,
            same_as: b"/a".to_vec(),
            xattrs: BTreeMap::new(),
        }
    }

    #[test]
    fn diff_names_each_path_that_differs() {
        let expected = Listing::from([(b"/a".to_vec(), file(0o644)), (b"/b".to_vec(), file(0o644))]);
        let actual = Listing::from([(b"/a".to_vec(), file(0o600)), (b"/c".to_vec(), file(0o644))]);
        let message = diff(&expected, &actual, &Ignore::NOTHING)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("3 of 2 paths differ"), "{message}");
        assert!(
            message.contains("- /a file 2 8f434346648f 0644 0:0 mtime=-1.000000005"),
            "{message}"
        );
        assert!(message.contains("+ /b (absent)"), "{message}");
        assert!(message.contains("- /c (absent)"), "{message}");
        diff(&expected, &expected, &Ignore::NOTHING).unwrap();
    }

    #[test]
    fn diff_ignores_only_what_it_is_told_to() {
        let expected = Listing::from([(b"/a".to_vec(), file(0o644))]);
        let mut actual = expected.clone();
        actual.get_mut(b"/a".as_slice()).unwrap().nlink = 7;
        diff(&expected, &actual, &Ignore::NOTHING).unwrap_err();
        diff(&expected, &actual, &Ignore::EXT4_VIEW).unwrap();
        actual.get_mut(b"/a".as_slice()).unwrap().uid = 7;
        diff(&expected, &actual, &Ignore::EXT4_VIEW).unwrap_err();
    }
}
