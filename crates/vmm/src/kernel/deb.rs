//! A Debian package as a file: an `ar` archive whose member `data.tar.*` is the tree that it would install.
//!
//! ```text
//! "!<arch>\n", then per member: name[16] mtime[12] uid[6] gid[6] mode[8] size[10] "`\n", bytes, pad to even
//! ```
//!
//! Nothing is unpacked onto the host: the tar is read as a stream and only its entries' bytes are looked at.
//! Format: `deb(5)`.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Why a file is not a package that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// The archive's magic number is absent.
    #[error("not a Debian package: it does not start with \"!<arch>\"")]
    Magic,
    /// A member's header is damaged.
    #[error("member header at byte {offset} is damaged")]
    Header {
        /// Where the header starts.
        offset: u64,
    },
    /// No member with the files.
    #[error("no data.tar member, or one with a compression not known here (plain, gzip, xz, zstd)")]
    NoData,
    /// The file cannot be read.
    #[error("cannot read the package")]
    Read(#[source] io::Error),
}

/// The stream of a package's `data.tar`, decompressed.
///
/// # Errors
/// [`DebError`] if the file is no package, is damaged, or cannot be read.
pub fn data_tar(mut file: File) -> Result<Box<dyn Read + Send>, DebError> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DebError::Magic,
        _ => DebError::Read(error),
    })?;
    if &magic != b"!<arch>\n" {
        return Err(DebError::Magic);
    }
    let mut offset = 8_u64;
    loop {
        let mut header = [0; 60];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(DebError::NoData),
            Err(error) => return Err(DebError::Read(error)),
        }
        let (name, size_bytes) = member(&header).ok_or(DebError::Header { offset })?;
        if let Some(ending) = name.strip_prefix("data.tar") {
            let body = io::BufReader::with_capacity(64 << 10, file.take(size_bytes));
            return decoder(ending, body);
        }
        let padded = size_bytes
            .checked_next_multiple_of(2)
            .ok_or(DebError::Header { offset })?;
        let next = offset.checked_add(60).and_then(|at| at.checked_add(padded));
        offset = next.ok_or(DebError::Header { offset })?;
        file.seek(SeekFrom::Start(offset)).map_err(DebError::Read)?;
    }
}

/// A member's name and size, from its header.
fn member(header: &[u8; 60]) -> Option<(&str, u64)> {
    if header.get(58..60) != Some(b"`\n") {
        return None;
    }
    let text = |range| {
        header
            .get(range)
            .and_then(|bytes: &[u8]| std::str::from_utf8(bytes).ok())
    };
    let name = text(0..16)?.trim_end().trim_end_matches('/');
    Some((name, text(48..58)?.trim_end().parse().ok()?))
}

fn decoder(ending: &str, body: io::BufReader<io::Take<File>>) -> Result<Box<dyn Read + Send>, DebError> {
    Ok(match ending {
        "" => Box::new(body),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
        ".xz" => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(body)),
        ".zst" => Box::new(zstd::stream::read::Decoder::with_buffer(body).map_err(DebError::Read)?),
        _ => return Err(DebError::NoData),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// A package with the given members, written from `deb(5)`.
    pub(crate) fn package(members: &[(&str, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"!<arch>\n").unwrap();
        for (name, body) in members {
            writeln!(
                file,
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
                0,
                0,
                0,
                100_644,
                body.len()
            )
            .unwrap();
            file.write_all(body).unwrap();
            if body.len() % 2 == 1 {
                file.write_all(b"\n").unwrap();
            }
        }
        file.rewind().unwrap();
        file
    }

    fn read(file: File) -> Result<Vec<u8>, DebError> {
        let mut bytes = Vec::new();
        data_tar(file)?.read_to_end(&mut bytes).map_err(DebError::Read)?;
        Ok(bytes)
    }

    #[test]
    fn the_data_member_is_found_behind_odd_ones() {
        for (name, body) in [
            ("data.tar", b"hello".to_vec()),
            ("data.tar.zst/", zstd::encode_all(&b"hello"[..], 1).unwrap()),
            ("data.tar.xz", {
                let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
                xz.write_all(b"hello").unwrap();
                xz.finish().unwrap()
            }),
            ("data.tar.gz", {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(b"hello").unwrap();
                gzip.finish().unwrap()
            }),
        ] {
            let members = [
                ("debian-binary", &b"2.0"[..]),
                ("control.tar.xz", b"odd"),
                (name, &body),
            ];
            assert_eq!(read(package(&members)).unwrap(), b"hello", "{name}");
        }
    }

    #[test]
    fn what_is_no_package_is_refused() {
        assert!(matches!(read(package(&[])), Err(DebError::NoData)));
        assert!(matches!(
            read(package(&[("data.tar.lzma", b"x")])),
            Err(DebError::NoData)
        ));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"!<arch").unwrap();
        file.rewind().unwrap();
        assert!(matches!(read(file), Err(DebError::Magic)));
        let mut file = package(&[("a", b"b")]);
        file.seek(SeekFrom::Start(8 + 48)).unwrap();
        file.write_all(b"-1").unwrap();
        file.rewind().unwrap();
        assert!(matches!(read(file), Err(DebError::Header { offset: 8 })));
        // A member that says it is enormous: the seek goes past the end, where there is no further header.
        let mut file = package(&[("a", b"b")]);
        file.seek(SeekFrom::Start(8 + 48)).unwrap();
        file.write_all(b"9999999999").unwrap();
        file.rewind().unwrap();
        assert!(matches!(read(file), Err(DebError::NoData)));
    }
}
