//! Archives that cannot be read in place (compressed, or from a pipe) go to a nameless temporary file first.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Part, SourceError};
use crate::image::file_error;
use crate::options::Options;

/// The ratio of decompression counts only from here on, in bytes of output.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// Opens an archive so that any byte range of the plain tar can be read.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Arc<File>, SourceError> {
    let read_error = |source| file_error("read", path, source);
    let mut file = File::open(path).map_err(|source| file_error("open", path, source))?;
    let is_regular = file.metadata().map_err(read_error)?.is_file();
    let mut magic = Vec::new();
    (&mut file).take(6).read_to_end(&mut magic).map_err(read_error)?;
    let unsupported = |format| SourceError::ArchiveCompression {
        path: path.to_owned(),
        format,
    };
    let whole = |magic: Vec<u8>, rest: File| io::Cursor::new(magic).chain(rest);
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => {}
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(unsupported("zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unsupported("xz")),
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        _ if is_regular => return Ok(Arc::new(file)),
        _ => return spool(whole(magic, file), path, options, &Cell::new(u64::MAX)),
    }
    let stored = Cell::new(0);
    let counted = Counted {
        inner: whole(magic, file),
        count: &stored,
    };
    spool(flate2::read::MultiGzDecoder::new(counted), path, options, &stored)
}

/// Counts what is read.
struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.count.set(self.count.get().saturating_add(len as u64));
        Ok(len)
    }
}

/// Copies `from` to a temporary file. `stored` is how many bytes were read of the archive for it.
fn spool(
    mut from: impl Read,
    path: &Path,
    options: &Options,
    stored: &Cell<u64>,
) -> Result<Arc<File>, SourceError> {
    let write_error = |source| file_error("write a temporary file in", &options.temp_dir, source);
    let mut into = tempfile::tempfile_in(&options.temp_dir).map_err(write_error)?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(file_error("decompress", path, source)),
        };
        total = total.saturating_add(len as u64);
        let by_ratio = stored
            .get()
            .saturating_mul(options.limits.spool_ratio)
            .max(RATIO_FREE_BYTES);
        let (limit, what) = if by_ratio < options.limits.spool_bytes {
            (
                by_ratio,
                "the archive's size when decompressed, for so few compressed bytes (at least)",
            )
        } else {
            let what = "the archive's size when decompressed, in bytes (at least)";
            (options.limits.spool_bytes, what)
        };
        if total > limit {
            return Err(SourceError::Limit {
                part: Part::Index,
                place: path.display().to_string(),
                what,
                found: total,
                limit,
            });
        }
        into.write_all(&buffer[..len]).map_err(write_error)?;
    }
    into.seek(SeekFrom::Start(0)).map_err(write_error)?;
    Ok(Arc::new(into))
}
