//! The index of a tar archive that holds images: names to byte ranges, so that blobs are read in place.
//!
//! Only what such archives contain is understood: files, folders, links, GNU and PAX long names. This is not the
//! scanner of layers; see crate `layer` for that.
//! Format: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html> (ustar and pax interchange format).
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebrick_registry::quote::quoted;

use crate::error::{Part, SourceError};

const BLOCK: u64 = 512;
/// Long names and PAX headers beyond this are no archive of images.
const EXTENSION_LIMIT: u64 = 1 << 20;
const NAME_LIMIT: usize = 4096;
const LINK_LIMIT: usize = 16;

/// An opened archive and where its entries lie.
#[derive(Debug)]
pub(crate) struct TarIndex {
    file: Arc<File>,
    path: PathBuf,
    entries: HashMap<Vec<u8>, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    File {
        offset: u64,
        len: u64,
    },
    /// A hard link, from the archive's root.
    Hardlink(Vec<u8>),
    /// A symbolic link, from the folder it lies in.
    Symlink(Vec<u8>),
    Other,
}

/// A file of the archive: a range of bytes of the archive itself.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The name it has after all links, e.g. `blobs/sha256/…`.
    pub(crate) name: String,
}

impl TarIndex {
    /// Reads all headers of an uncompressed tar.
    pub(crate) fn read(file: Arc<File>, path: &Path, entry_limit: usize) -> Result<TarIndex, SourceError> {
        let len = file
            .metadata()
            .map_err(|source| SourceError::File {
                action: "read the size of",
                path: path.to_owned(),
                source,
            })?
            .len();
        let mut scanner = Scanner {
            file: &file,
            path,
            len,
            offset: 0,
            entries: HashMap::new(),
            entry_limit,
        };
        scanner.scan()?;
        let entries = scanner.entries;
        Ok(TarIndex {
            entries,
            path: path.to_owned(),
            file,
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name.as_bytes())
    }

    /// Finds a file by name, following links inside the archive.
    pub(crate) fn member(&self, part: Part, name: &str) -> Result<Member, SourceError> {
        let outside = || SourceError::Outside {
            name: quoted(name),
            place: self.path.clone(),
        };
        let missing = || SourceError::Missing {
            part: part.clone(),
            name: quoted(name),
            place: self.path.clone(),
        };
        let mut at = normalise(&[], name.as_bytes()).ok_or_else(outside)?;
        for _ in 0..LINK_LIMIT {
            at = match self.entries.get(&at).ok_or_else(missing)? {
                Entry::File { offset, len } => {
                    return Ok(Member {
                        file: Arc::clone(&self.file),
                        path: self.path.clone(),
                        offset: *offset,
                        len: *len,
                        name: String::from_utf8_lossy(&at).into_owned(),
                    });
                }
                Entry::Hardlink(target) => normalise(&[], target).ok_or_else(outside)?,
                Entry::Symlink(target) => {
                    let folder = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    normalise(at.get(..folder).unwrap_or(&[]), target).ok_or_else(outside)?
                }
                Entry::Other => return Err(missing()),
            };
        }
        Err(SourceError::LinkLoop {
            name: quoted(name),
            place: self.path.clone(),
        })
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(crate) fn read_small(&self, part: Part, name: &str, limit: u64) -> Result<Vec<u8>, SourceError> {
        let member = self.member(part.clone(), name)?;
        if member.len > limit {
            return Err(SourceError::Limit {
                part,
                place: quoted(name),
                what: "its size in bytes",
                found: member.len,
                limit,
            });
        }
        let mut bytes = vec![0; usize::try_from(member.len).unwrap_or(usize::MAX)];
        member
            .file
            .read_exact_at(&mut bytes, member.offset)
            .map_err(|source| SourceError::File {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
        Ok(bytes)
    }
}

/// Joins `name` to `folder`; `None` if it leads above the root or is absolute.
fn normalise(folder: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = folder
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

struct Scanner<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    offset: u64,
    entries: HashMap<Vec<u8>, Entry>,
    entry_limit: usize,
}

/// What an extension header says of the next entry.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), SourceError> {
        let mut overrides = Overrides::default();
        loop {
            // Some writers leave the two blocks of zeros away.
            if self.offset == self.len && self.offset > 0 {
                return Ok(());
            }
            let mut header = [0; 512];
            self.read_at(&mut header, self.offset)?;
            if header.iter().all(|&byte| byte == 0) {
                return Ok(());
            }
            if !checksum_fits(&header) {
                return Err(self.damaged("not a tar header"));
            }
            let size = match overrides.size {
                Some(size) => size,
                None => {
                    number(field(&header, 124, 12)).ok_or_else(|| self.damaged("the size is not a number"))?
                }
            };
            let data = self.offset.saturating_add(BLOCK);
            let end = data
                .checked_add(size)
                .and_then(|end| end.checked_next_multiple_of(BLOCK))
                .ok_or_else(|| self.damaged("the size overflows"))?;
            if data.saturating_add(size) > self.len {
                return Err(self.damaged("the archive ends inside this entry"));
            }
            let kind = header.get(156).copied().unwrap_or(0);
            match kind {
                b'L' => overrides.name = Some(until_nul(&self.extension(data, size)?).to_owned()),
                b'K' => overrides.link = Some(until_nul(&self.extension(data, size)?).to_owned()),
                b'x' => {
                    let records = self.extension(data, size)?;
                    self.pax(&records, &mut overrides)?;
                }
                b'g' => {}
                _ => self.add(&header, kind, data, size, std::mem::take(&mut overrides))?,
            }
            self.offset = end.min(self.len);
        }
    }

    fn add(
        &mut self,
        header: &[u8; 512],
        kind: u8,
        data: u64,
        size: u64,
        overrides: Overrides,
    ) -> Result<(), SourceError> {
        let name = overrides.name.unwrap_or_else(|| ustar_name(header));
        let name = normalise(&[], &name).ok_or_else(|| SourceError::Outside {
            name: quoted(&String::from_utf8_lossy(&name)),
            place: self.path.to_owned(),
        })?;
        if name.len() > NAME_LIMIT {
            return Err(self.damaged("a name is over 4096 bytes"));
        }
        let link = || {
            let own = until_nul(field(header, 157, 100)).to_owned();
            overrides.link.unwrap_or(own)
        };
        let entry = match kind {
            b'0' | 0 | b'7' => Entry::File {
                offset: data,
                len: size,
            },
            b'1' => Entry::Hardlink(link()),
            b'2' => Entry::Symlink(link()),
            b'S' => return Err(self.damaged("sparse files are not supported in archives of images")),
            _ => Entry::Other,
        };
        self.entries.insert(name, entry);
        if self.entries.len() > self.entry_limit {
            return Err(self.damaged("too many entries for an archive of images"));
        }
        Ok(())
    }

    fn extension(&self, offset: u64, size: u64) -> Result<Vec<u8>, SourceError> {
        if size > EXTENSION_LIMIT {
            return Err(self.damaged("an extension header is over 1 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Records are `LENGTH KEY=VALUE\n`, the length counting itself.
    fn pax(&self, mut records: &[u8], overrides: &mut Overrides) -> Result<(), SourceError> {
        let bad = || self.damaged("a PAX header is malformed");
        while records.first().is_some_and(|&byte| byte != 0) {
            let space = records.iter().take(20).position(|&b| b == b' ').ok_or_else(bad)?;
            let len = records.get(..space).and_then(decimal).ok_or_else(bad)?;
            let len = usize::try_from(len).map_err(|_| bad())?;
            let record = records.get(space.saturating_add(1)..len).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or(&[]);
            match key {
                b"path" => overrides.name = Some(value.to_owned()),
                b"linkpath" => overrides.link = Some(value.to_owned()),
                b"size" => overrides.size = Some(decimal(value).ok_or_else(bad)?),
                b"GNU.sparse.major" | b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    return Err(self.damaged("sparse files are not supported in archives of images"));
                }
                _ => {}
            }
            records = records.get(len..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => self.damaged("the archive ends here"),
                _ => SourceError::File {
                    action: "read",
                    path: self.path.to_owned(),
                    source,
                },
            })
    }

    fn damaged(&self, problem: &'static str) -> SourceError {
        SourceError::Archive {
            path: self.path.to_owned(),
            offset: self.offset,
            problem,
        }
    }
}

fn field(header: &[u8; 512], start: usize, len: usize) -> &[u8] {
    header.get(start..start.saturating_add(len)).unwrap_or(&[])
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
}

fn ustar_name(header: &[u8; 512]) -> Vec<u8> {
    let name = until_nul(field(header, 0, 100));
    let prefix = until_nul(field(header, 345, 155));
    // Old GNU headers (magic "ustar  ") use the prefix field for times.
    if prefix.is_empty() || field(header, 257, 6) != b"ustar\0" {
        return name.to_owned();
    }
    [prefix, b"/", name].concat()
}

/// Octal text, or base 256 where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first == 0x80 {
        return rest.iter().try_fold(0u64, |value, &byte| {
            value.checked_mul(256)?.checked_add(u64::from(byte))
        });
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    match text {
        "" => Some(0),
        text => u64::from_str_radix(text, 8).ok(),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn checksum_fits(header: &[u8; 512]) -> bool {
    let sum = header.iter().enumerate().fold(0u64, |sum, (at, &byte)| {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        sum.saturating_add(u64::from(byte))
    });
    number(field(header, 148, 8)) == Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let join = |folder: &str, name: &str| {
            normalise(folder.as_bytes(), name.as_bytes()).map(|name| String::from_utf8(name).unwrap())
        };
        assert_eq!(join("", "./a//b/").as_deref(), Some("a/b"));
        assert_eq!(join("x/y", "../z").as_deref(), Some("x/z"));
        assert_eq!(join("x", "../../z"), None);
        assert_eq!(join("", ".."), None);
        assert_eq!(join("x", "/etc"), None);
    }

    #[test]
    fn numbers_of_headers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(b"9"), None);
        assert_eq!(number(b"-1"), None);
    }
}
