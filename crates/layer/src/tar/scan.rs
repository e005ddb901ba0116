//! Entries out of a tar stream, file contents into a region.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use std::io::{self, BufRead};

use firebrick_tree::{
    DeviceKind, Entry, EntryKind, FileData, LayerIndex, LayerPath, Metadata, RegionIndex, Segment, Timestamp,
};

use super::header::{Dialect, Header, TAR_BLOCK, readable, until_nul};
use super::pax::Pax;
use super::sparse::{self, Part};
use crate::error::{ScanError, TarError};
use crate::limits::Limits;

/// Files start on multiples of this many bytes of a region: the block size of every filesystem that we write.
pub const BLOCK_LEN: u64 = 4096;

/// Longest extended header or long name, in bytes. Linux allows 64 KiB for one xattr.
const EXTENDED_LEN_MAX: u64 = 4 << 20;

/// Longest symbolic link target (`PATH_MAX` without its end).
const SYMLINK_LEN_MAX: usize = 4095;

/// Takes the bytes of a region in order.
pub trait RegionSink {
    /// Adds `bytes` behind what was added before.
    ///
    /// # Errors
    /// What writing gives; the scan ends with it.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Adds `len` zero bytes, fewer than 4096.
    ///
    /// # Errors
    /// As [`RegionSink::append`].
    fn append_zeros(&mut self, len: usize) -> io::Result<()>;

    /// Hears of an entry once its content, if any, was appended: for those who need each at once, and not the index at the
    /// end. The others do nothing.
    ///
    /// # Errors
    /// As [`RegionSink::append`].
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        _ = entry;
        Ok(())
    }
}

/// What a scan found, beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// How many entries.
    pub entries: u64,
    /// Length of all paths, link targets, xattrs and maps of sparse files, in bytes.
    pub metadata_bytes: u64,
    /// Length of the uncompressed tar, in bytes.
    pub tar_bytes: u64,
    /// Length of all file contents, in bytes.
    pub file_bytes: u64,
}

impl ScanSummary {
    /// Both together: of all layers below the next one.
    #[must_use]
    pub fn plus(self, other: ScanSummary) -> ScanSummary {
        ScanSummary {
            entries: self.entries.saturating_add(other.entries),
            metadata_bytes: self.metadata_bytes.saturating_add(other.metadata_bytes),
            tar_bytes: self.tar_bytes.saturating_add(other.tar_bytes),
            file_bytes: self.file_bytes.saturating_add(other.file_bytes),
        }
    }
}

/// Scans the uncompressed tar of the layer at `region`, to its end (also past the end-of-archive mark).
///
/// Whiteouts become [`EntryKind::Whiteout`] and [`EntryKind::OpaqueWhiteout`]; other `.wh..wh.` names are AUFS's own
/// and are left out. Global PAX headers are ignored, as container tools do. `below` is what the layers below hold: the
/// limits are for all of them together.
///
/// # Errors
/// [`ScanError`] where the tar is wrong, unsupported, over a limit, or cannot be read or written.
pub fn scan(
    tar: impl BufRead,
    region: RegionIndex,
    sink: &mut impl RegionSink,
    limits: &Limits,
    below: ScanSummary,
) -> Result<(LayerIndex, ScanSummary), ScanError> {
    let mut scanner = Scanner {
        tar,
        sink,
        limits,
        below,
        region,
        offset: 0,
        region_len: 0,
        summary: ScanSummary::default(),
        entries: Vec::new(),
    };
    scanner.read_entries()?;
    scanner.drain()?;
    scanner.summary.tar_bytes = scanner.offset;
    let index = LayerIndex {
        entries: scanner.entries,
        region_len: scanner.region_len,
    };
    Ok((index, scanner.summary))
}

struct Scanner<'a, R, S> {
    tar: R,
    sink: &'a mut S,
    limits: &'a Limits,
    below: ScanSummary,
    region: RegionIndex,
    /// How much of the tar was read.
    offset: u64,
    /// How much was appended to the region; between files a multiple of [`BLOCK_LEN`].
    region_len: u64,
    summary: ScanSummary,
    entries: Vec<Entry>,
}

/// What extended headers and long names say about the entry behind them.
#[derive(Default)]
struct Extended {
    pax: Pax,
    gnu_path: Option<Vec<u8>>,
    gnu_link_path: Option<Vec<u8>>,
    /// Length of all of them, in bytes.
    len: u64,
}

impl Extended {
    /// Counts a header of `len` bytes. One entry may have several; together they stay as short as one may be.
    fn add(&mut self, len: usize) -> Result<(), TarError> {
        // An empty header is still one that must be followed by an entry.
        let len = u64::try_from(len).unwrap_or(u64::MAX).max(1);
        self.len = self.len.saturating_add(len);
        if self.len > EXTENDED_LEN_MAX {
            return Err(TarError::TooLong {
                what: "extended headers of one entry",
                len: self.len,
                limit: EXTENDED_LEN_MAX,
            });
        }
        Ok(())
    }
}

/// An entry as it stands in the archive, extended headers applied.
struct Stored {
    raw_path: Vec<u8>,
    link_path: Vec<u8>,
    typeflag: u8,
    /// Length of what follows the header, in bytes.
    size: u64,
    /// Where the header stands.
    offset: u64,
}

impl<R: BufRead, S: RegionSink> Scanner<'_, R, S> {
    fn read_entries(&mut self) -> Result<(), ScanError> {
        let mut extended = Extended::default();
        let mut block = [0; TAR_BLOCK];
        loop {
            let header_offset = self.offset;
            let corrupt = |source| ScanError::Corrupt {
                offset: header_offset,
                source,
            };
            if !self.read_block(&mut block, true)? {
                break;
            }
            if block == [0; TAR_BLOCK] {
                // The end is two blocks of zeros; the end of the stream after one is taken too.
                if self.read_block(&mut block, true)? && block != [0; TAR_BLOCK] {
                    return Err(corrupt(TarError::LoneZeroBlock));
                }
                break;
            }
            let header = Header::new(&block).map_err(corrupt)?;
            match header.typeflag() {
                b'x' | b'X' => {
                    let records =
                        self.read_extended("extended header", header.size().map_err(corrupt)?, corrupt)?;
                    extended.pax.parse(&records).map_err(corrupt)?;
                    extended.add(records.len()).map_err(corrupt)?;
                }
                b'L' => {
                    let name = self.read_extended("long name", header.size().map_err(corrupt)?, corrupt)?;
                    extended.gnu_path = Some(until_nul(&name).to_vec());
                    extended.add(name.len()).map_err(corrupt)?;
                }
                b'K' => {
                    let name =
                        self.read_extended("long link name", header.size().map_err(corrupt)?, corrupt)?;
                    extended.gnu_link_path = Some(until_nul(&name).to_vec());
                    extended.add(name.len()).map_err(corrupt)?;
                }
                // Global headers and volume labels.
                b'g' | b'V' => {
                    let size = header.size().map_err(corrupt)?;
                    self.skip_padded(size)?;
                }
                _ => self.read_entry(&header, std::mem::take(&mut extended), header_offset)?,
            }
        }
        if extended.len > 0 {
            return Err(ScanError::Corrupt {
                offset: self.offset,
                source: TarError::Dangling,
            });
        }
        Ok(())
    }

    fn read_entry(&mut self, header: &Header<'_>, extended: Extended, offset: u64) -> Result<(), ScanError> {
        let corrupt = |source| ScanError::Corrupt { offset, source };
        let Extended {
            mut pax,
            gnu_path,
            gnu_link_path,
            ..
        } = extended;
        let raw_path = pax
            .sparse
            .name
            .take()
            .or(pax.path.take())
            .or(gnu_path)
            .unwrap_or_else(|| header.path());
        let path = LayerPath::parse(&raw_path).map_err(|error| corrupt(error.into()))?;
        let link_path = pax
            .link_path
            .take()
            .or(gnu_link_path)
            .unwrap_or_else(|| header.link_path().to_vec());
        self.charge(path.as_bytes().len())?;
        self.charge(link_path.len())?;
        self.charge(pax.metadata_len())?;

        let mut typeflag = header.typeflag();
        // Before ustar, a directory was a file whose name ends in a slash.
        if typeflag == 0 && raw_path.ends_with(b"/") {
            typeflag = b'5';
        }
        let size = match typeflag {
            // These have no content, whatever their size field says.
            b'1'..=b'6' => 0,
            _ => pax.size.map_or_else(|| header.size(), Ok).map_err(corrupt)?,
        };
        if let Some(whiteout) = whiteout(&path, &raw_path).map_err(corrupt)? {
            self.skip_padded(size)?;
            if let Some((path, kind)) = whiteout {
                self.push(Entry::new(path, Metadata::default(), kind))?;
            }
            return Ok(());
        }
        let mut meta = metadata(header, &mut pax).map_err(corrupt)?;
        if typeflag == b'2' {
            // Linux shows this mode for every symbolic link, whatever the tar says.
            meta.mode = 0o777;
        }
        let stored = Stored {
            raw_path,
            link_path,
            typeflag,
            size,
            offset,
        };
        let kind = self.read_kind(header, &pax, stored)?;
        self.push(Entry::new(path, meta, kind))
    }

    /// What the entry is; its content goes to the region.
    fn read_kind(&mut self, header: &Header<'_>, pax: &Pax, stored: Stored) -> Result<EntryKind, ScanError> {
        let Stored {
            raw_path,
            link_path,
            typeflag,
            size,
            offset,
        } = stored;
        let corrupt = |source| ScanError::Corrupt { offset, source };
        Ok(match typeflag {
            // Outside GNU's dialect there is no place for the map, so the content cannot be right.
            b'S' if header.dialect() != Dialect::Gnu => {
                return Err(ScanError::Unsupported {
                    path: readable(&raw_path),
                    offset,
                    typeflag: 'S',
                });
            }
            b'0' | 0 | b'7' | b'S' => {
                EntryKind::File(self.read_content(header, pax, &raw_path, size, offset)?)
            }
            b'1' => EntryKind::Hardlink(LayerPath::parse(&link_path).map_err(|error| corrupt(error.into()))?),
            b'2' if link_path.is_empty() || link_path.len() > SYMLINK_LEN_MAX || link_path.contains(&0) => {
                let (path, len) = (readable(&raw_path), link_path.len());
                return Err(corrupt(TarError::SymlinkTarget { path, len }));
            }
            b'2' => EntryKind::Symlink(link_path.into()),
            b'3' | b'4' => {
                let (major, minor) = header.device().map_err(corrupt)?;
                EntryKind::Device {
                    kind: if typeflag == b'3' {
                        DeviceKind::Char
                    } else {
                        DeviceKind::Block
                    },
                    major: pax.device.0.unwrap_or(major),
                    minor: pax.device.1.unwrap_or(minor),
                }
            }
            b'5' => EntryKind::Directory,
            b'6' if pax.is_socket => EntryKind::Socket,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(ScanError::Unsupported {
                    path: readable(&raw_path),
                    offset,
                    typeflag: other.into(),
                });
            }
        })
    }

    fn push(&mut self, entry: Entry) -> Result<(), ScanError> {
        if self.summary.entries.saturating_add(self.below.entries) >= self.limits.entries {
            return Err(ScanError::Limit {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        self.summary.entries = self.summary.entries.saturating_add(1);
        self.sink
            .entry(&entry)
            .map_err(|source| ScanError::Write { source })?;
        self.entries.push(entry);
        Ok(())
    }

    /// Counts what an entry holds in memory against the limit.
    fn charge(&mut self, bytes: usize) -> Result<(), ScanError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.summary.metadata_bytes = self.summary.metadata_bytes.saturating_add(bytes);
        let all = self
            .summary
            .metadata_bytes
            .saturating_add(self.below.metadata_bytes);
        if all > self.limits.metadata_bytes {
            return Err(ScanError::Limit {
                what: "bytes of names, xattrs and sparse maps",
                limit: self.limits.metadata_bytes,
            });
        }
        Ok(())
    }

    /// Copies a regular file's content to the region. `stored` is its length in the archive.
    fn read_content(
        &mut self,
        header: &Header<'_>,
        pax: &Pax,
        path: &[u8],
        stored: u64,
        offset: u64,
    ) -> Result<FileData, ScanError> {
        let corrupt = |source| ScanError::Corrupt { offset, source };
        let mut parts = Vec::new();
        let (mut data_len, mut real_size) = (stored, stored);
        if header.dialect() == Dialect::Gnu && header.typeflag() == b'S' {
            let (entries, mut more, size) = header.gnu_sparse().map_err(corrupt)?;
            real_size = size;
            sparse::gnu_parts(entries, &mut parts).map_err(corrupt)?;
            let mut block = [0; TAR_BLOCK];
            while more {
                self.read_block(&mut block, false)?;
                more = sparse::gnu_extension(&block, &mut parts).map_err(corrupt)?;
            }
        } else if let Some(size) = pax.sparse.real_size {
            real_size = size;
            let numbers = match &pax.sparse.map {
                Some(numbers) if pax.sparse.major.is_none() => numbers.clone(),
                _ => {
                    let map_start = self.offset;
                    let numbers = self.read_sparse_map(path, offset)?;
                    let map_len = self.offset.saturating_sub(map_start);
                    let why = "the map is longer than the entry";
                    data_len = stored.checked_sub(map_len).ok_or_else(|| {
                        corrupt(TarError::Sparse {
                            path: readable(path),
                            why,
                        })
                    })?;
                    numbers
                }
            };
            parts = sparse::pax_parts(path, &numbers).map_err(corrupt)?;
        } else {
            parts.push(Part {
                offset: 0,
                len: stored,
            });
        }
        sparse::check(path, &parts, real_size, data_len).map_err(corrupt)?;
        let all = self.summary.file_bytes.saturating_add(self.below.file_bytes);
        if all.saturating_add(data_len) > self.limits.unpacked_bytes {
            return Err(ScanError::Limit {
                what: "unpacked bytes",
                limit: self.limits.unpacked_bytes,
            });
        }
        if parts.len() > 1 {
            self.charge(parts.len().saturating_mul(size_of::<Segment>()))?;
        }
        let segments = self.copy_parts(&parts, real_size)?;
        self.summary.file_bytes = self.summary.file_bytes.saturating_add(data_len);
        self.skip(padding(data_len))?;
        Ok(FileData {
            size: real_size,
            segments,
        })
    }

    fn read_sparse_map(&mut self, path: &[u8], offset: u64) -> Result<Vec<u64>, ScanError> {
        let mut reader = sparse::MapReader::default();
        let mut block = [0; TAR_BLOCK];
        loop {
            self.read_block(&mut block, false)?;
            let numbers = reader
                .take(path, &block)
                .map_err(|source| ScanError::Corrupt { offset, source })?;
            if let Some(numbers) = numbers {
                return Ok(numbers);
            }
        }
    }

    /// Appends parts so that each 4096-byte block of the file that holds any of them is one block of the region.
    fn copy_parts(&mut self, parts: &[Part], file_len: u64) -> Result<Vec<Segment>, ScanError> {
        let mut segments: Vec<Segment> = Vec::new();
        // The file offset up to which the last segment's bytes are there.
        let mut filled = 0;
        for part in parts.iter().filter(|part| part.len > 0) {
            let block_start = part.offset.saturating_sub(part.offset % BLOCK_LEN);
            match segments.last() {
                Some(_) if block_start <= round_up(filled) => {
                    self.zeros(part.offset.saturating_sub(filled))?
                }
                _ => {
                    self.finish_segment(&mut segments, filled, file_len)?;
                    segments.push(Segment {
                        file_offset: block_start,
                        region: self.region,
                        region_offset: self.region_len,
                        len: 0,
                    });
                    self.zeros(part.offset.saturating_sub(block_start))?;
                }
            }
            self.copy(part.len)?;
            filled = part.end();
        }
        self.finish_segment(&mut segments, filled, file_len)?;
        Ok(segments)
    }

    /// Fills up the last block of the last segment, if there is one.
    fn finish_segment(
        &mut self,
        segments: &mut [Segment],
        filled: u64,
        file_len: u64,
    ) -> Result<(), ScanError> {
        let Some(segment) = segments.last_mut() else {
            return Ok(());
        };
        self.zeros(round_up(filled).saturating_sub(filled))?;
        segment.len = round_up(filled).min(file_len).saturating_sub(segment.file_offset);
        Ok(())
    }

    /// Appends fewer than two blocks of zeros.
    fn zeros(&mut self, len: u64) -> Result<(), ScanError> {
        let mut left = len;
        while left > 0 {
            let piece = left.min(BLOCK_LEN.saturating_sub(1));
            let piece_len = usize::try_from(piece).expect("less than a block");
            self.sink
                .append_zeros(piece_len)
                .map_err(|source| ScanError::Write { source })?;
            left = left.saturating_sub(piece);
        }
        self.region_len = self.region_len.saturating_add(len);
        Ok(())
    }

    /// Appends the next `len` bytes of the tar.
    fn copy(&mut self, len: u64) -> Result<(), ScanError> {
        self.consume(len, |sink, bytes| sink.append(bytes))?;
        self.region_len = self.region_len.saturating_add(len);
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result<(), ScanError> {
        self.consume(len, |_, _| Ok(()))
    }

    fn skip_padded(&mut self, len: u64) -> Result<(), ScanError> {
        self.skip(len)?;
        self.skip(padding(len))
    }

    fn consume(
        &mut self,
        len: u64,
        mut take: impl FnMut(&mut S, &[u8]) -> io::Result<()>,
    ) -> Result<(), ScanError> {
        let mut left = len;
        while left > 0 {
            let offset = self.offset;
            let bytes = fill(&mut self.tar, offset)?;
            if bytes.is_empty() {
                return Err(ScanError::Truncated { offset });
            }
            let wanted = usize::try_from(left).unwrap_or(usize::MAX);
            let bytes = bytes.get(..wanted).unwrap_or(bytes);
            let count = bytes.len();
            take(self.sink, bytes).map_err(|source| ScanError::Write { source })?;
            self.advance(count)?;
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Reads one block. False if the stream was at its end and `end_allowed`.
    fn read_block(&mut self, block: &mut [u8; TAR_BLOCK], end_allowed: bool) -> Result<bool, ScanError> {
        let mut filled = 0;
        while let Some(space) = block.get_mut(filled..).filter(|space| !space.is_empty()) {
            let offset = self.offset;
            let bytes = fill(&mut self.tar, offset)?;
            if bytes.is_empty() {
                if end_allowed && filled == 0 {
                    return Ok(false);
                }
                return Err(ScanError::Truncated { offset });
            }
            let count = bytes.len().min(space.len());
            for (to, from) in space.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.advance(count)?;
            filled = filled.saturating_add(count);
        }
        Ok(true)
    }

    /// Reads the body of an extended header into memory.
    fn read_extended(
        &mut self,
        what: &'static str,
        len: u64,
        corrupt: impl Fn(TarError) -> ScanError,
    ) -> Result<Vec<u8>, ScanError> {
        if len > EXTENDED_LEN_MAX {
            return Err(corrupt(TarError::TooLong {
                what,
                len,
                limit: EXTENDED_LEN_MAX,
            }));
        }
        let mut body = Vec::new();
        self.consume(len, |_, bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        self.skip(padding(len))?;
        Ok(body)
    }

    /// Reads what follows the end of the archive, so that digests see the whole stream.
    fn drain(&mut self) -> Result<(), ScanError> {
        loop {
            let count = fill(&mut self.tar, self.offset)?.len();
            if count == 0 {
                return Ok(());
            }
            self.advance(count)?;
        }
    }

    fn advance(&mut self, count: usize) -> Result<(), ScanError> {
        self.tar.consume(count);
        self.offset = self
            .offset
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.offset > self.limits.unpacked_bytes {
            return Err(ScanError::Limit {
                what: "unpacked bytes",
                limit: self.limits.unpacked_bytes,
            });
        }
        Ok(())
    }
}

fn fill(tar: &mut impl BufRead, offset: u64) -> Result<&[u8], ScanError> {
    tar.fill_buf()
        .map_err(|source| ScanError::Read { offset, source })
}

/// How many bytes follow `len` bytes up to a whole tar block.
fn padding(len: u64) -> u64 {
    len.wrapping_neg() % 512
}

fn round_up(len: u64) -> u64 {
    len.saturating_add(len.wrapping_neg() % BLOCK_LEN)
}

fn metadata(header: &Header<'_>, pax: &mut Pax) -> Result<Metadata, TarError> {
    let mode = header.mode()?;
    Ok(Metadata {
        // libarchive keeps the owning group's permissions there; unpacking such a list sets the mask's.
        mode: pax.acl_mode.map_or(mode, |bits| (mode & !0o777) | bits),
        uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
        gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
        mtime: match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp {
                seconds: header.mtime()?,
                nanoseconds: 0,
            },
        },
        xattrs: std::mem::take(&mut pax.xattrs),
    })
}

/// Whether the path is a whiteout: `Some(None)` for AUFS's own files, which mean nothing to us.
#[expect(
    clippy::option_option,
    reason = "not a whiteout, a whiteout to leave out, a whiteout to apply"
)]
fn whiteout(path: &LayerPath, raw_path: &[u8]) -> Result<Option<Option<(LayerPath, EntryKind)>>, TarError> {
    let Some((parent, name)) = path.split_last() else {
        return Ok(None);
    };
    let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") else {
        return Ok(None);
    };
    if hidden == b".wh..opq" {
        return Ok(Some(Some((parent, EntryKind::OpaqueWhiteout))));
    }
    if hidden.starts_with(b".wh.") {
        return Ok(Some(None));
    }
    let name = firebrick_tree::Name::new(hidden).ok_or_else(|| TarError::Whiteout {
        path: readable(raw_path),
    })?;
    Ok(Some(Some((parent.join(&name), EntryKind::Whiteout))))
}

#[cfg(test)]
mod tests;
