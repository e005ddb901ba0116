//! Just as much tar as an OCI archive needs: regular files with short names.
//!
//! Format: <https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_06> (ustar). Extended headers are left
//! out of account: names of blobs are 77 bytes and always fit, and whose file is longer than 8 GiB is none of ours. If one changes a name
//! after all, that blob is missing, and so the archive is refused.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// Why an archive cannot be read.
#[derive(Debug)]
pub(crate) enum TarError {
    Read(io::Error),
    Format(String),
}

/// Writes the header of a file.
pub(crate) fn write_header(writer: &mut dyn Write, name: &str, len: u64) -> io::Result<()> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{len:011o}\x0000000000000\0").as_bytes());
    put(148, b"        0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\x000000000\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (place, byte) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *place = byte;
    }
    writer.write_all(&header)
}

/// Fills a file of `len` bytes up to a whole block.
pub(crate) fn write_padding(writer: &mut dyn Write, len: u64) -> io::Result<()> {
    let rest = usize::try_from(len % BLOCK as u64).unwrap_or(0);
    writer.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
}

/// Ends an archive.
pub(crate) fn write_end(writer: &mut dyn Write) -> io::Result<()> {
    writer.write_all(&[0; 2 * BLOCK])
}

/// A file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) len: u64,
}

/// The files of an archive, one by one. Whatever it holds besides is passed over.
pub(crate) struct Members<'a> {
    input: &'a mut dyn Read,
    /// Bytes of the file that were not read yet, and what fills its last block.
    left: u64,
    padding: u64,
}

impl<'a> Members<'a> {
    pub(crate) fn new(input: &'a mut dyn Read) -> Members<'a> {
        Members {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next file, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarError> {
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header[156];
            // Links, devices and folders have no bytes, whatever their length says.
            let len = match kind {
                b'1'..=b'6' => 0,
                _ => octal(&header[124..136])
                    .ok_or_else(|| TarError::Format("a file has no length".to_owned()))?,
            };
            self.left = len;
            self.padding = len.wrapping_neg() % BLOCK as u64;
            if matches!(kind, 0 | b'0' | b'7') {
                let name = name(&header);
                return Ok(Some(Member { name, len }));
            }
        }
    }

    /// All bytes of the file that was given last, which has no more than fit into memory: whoever asks has looked.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>, TarError> {
        let mut bytes = Vec::new();
        let mut input = (&mut *self.input).take(self.left);
        let read = input.read_to_end(&mut bytes).map_err(TarError::Read)?;
        self.left = self.left.saturating_sub(read as u64);
        match self.left {
            0 => Ok(bytes),
            _ => Err(TarError::Format("it ends inside a file".to_owned())),
        }
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let len = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut *self.input).take(len), &mut io::sink()).map_err(TarError::Read)?;
        match skipped == len {
            true => Ok(()),
            false => Err(TarError::Format("it ends inside a file".to_owned())),
        }
    }

    /// The next header; nothing at the mark of the end, and where there is no more.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut bytes = Vec::with_capacity(BLOCK);
        let mut input = (&mut *self.input).take(BLOCK as u64);
        input.read_to_end(&mut bytes).map_err(TarError::Read)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Ok(header) = <[u8; BLOCK]>::try_from(bytes) else {
            return Err(TarError::Format("it ends inside a header".to_owned()));
        };
        if header == [0; BLOCK] {
            return Ok(None);
        }
        let sum = |blank: bool| -> u64 {
            let byte = |(at, byte): (usize, &u8)| match blank && (148..156).contains(&at) {
                true => u64::from(b' '),
                false => u64::from(*byte),
            };
            header.iter().enumerate().map(byte).sum()
        };
        match octal(&header[148..156]) == Some(sum(true)) {
            true => Ok(Some(header)),
            false => Err(TarError::Format(not_a_header(&header).to_owned())),
        }
    }
}

/// What stands in the place of a header.
fn not_a_header(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x1f, 0x8b, ..] => "it is compressed by gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed by zstd",
        [b'B', b'Z', b'h', ..] => "it is compressed by bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "it is compressed by xz",
        _ => "it is no tar archive, or a header in it is damaged",
    }
}

/// A number in octal digits, between spaces or before a zero.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.split('\0').next()?.trim_matches(' ');
    u64::from_str_radix(text, 8)
        .ok()
        .filter(|_| !text.starts_with('+'))
}

fn name(header: &[u8; BLOCK]) -> String {
    let field = |range: std::ops::Range<usize>| {
        let bytes = &header[range];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (name, prefix) = (field(0..100), field(345..500));
    match prefix.is_empty() || header[257..263] != *b"ustar\0" {
        true => name,
        false => format!("{prefix}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in files {
            write_header(&mut bytes, name, content.len() as u64).unwrap();
            bytes.extend_from_slice(content);
            write_padding(&mut bytes, content.len() as u64).unwrap();
        }
        write_end(&mut bytes).unwrap();
        bytes
    }

    type Read = Result<Vec<(String, Vec<u8>)>, TarError>;

    fn read(mut bytes: &[u8]) -> Read {
        let mut members = Members::new(&mut bytes);
        let mut found = Vec::new();
        while let Some(member) = members.next()? {
            found.push((member.name, members.read()?));
        }
        Ok(found)
    }

    #[test]
    fn files_come_back() {
        let long = vec![7; 1024];
        let bytes = archive(&[("a", b""), ("b/c", b"x"), ("d", &long)]);
        let found = read(&bytes).unwrap();
        assert_eq!(
            found,
            [
                ("a".to_owned(), vec![]),
                ("b/c".to_owned(), b"x".to_vec()),
                ("d".to_owned(), long)
            ]
        );
        // Without the mark of the end, too.
        assert_eq!(read(&bytes[..bytes.len() - 1024]).unwrap(), found);
    }

    #[test]
    fn cut_and_damaged_archives_are_refused() {
        let bytes = archive(&[("a", &[1; 700]), ("b", b"x")]);
        let end = bytes.len() - 1024;
        for cut in (1..end).filter(|cut| ![512 + 1024].contains(cut)) {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in [0, 124, 148, 156, 300] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(read(&bytes).is_err(), "{at}");
        }
        assert!(read(&[b'x'; 5000]).is_err());
    }

    /// GNU tar is who reads it otherwise.
    #[test]
    fn gnu_tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, archive(&[("x/y", b"hello"), ("z", &[0; 5000])])).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&path)
            .output()
            .unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(
            text.contains("-rw-r--r-- 0/0") && text.contains("5 1970-01-01 00:00 x/y"),
            "{text}"
        );
    }
}
