//! What the benchmarks compare firebrick with: two ext4 crates, and the bare costs of inflating and of writing.
//!
//! `peers arcbox OUT SIZE TAR…` and `peers mkext4 OUT SIZE INODES TAR` make an image; `peers inflate LAYER…` only
//! decompresses; `peers write OUT BYTES [direct]` only writes. Sizes are in bytes. Nothing here checks a digest.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Meta, Options, ROOT, SpecialKind};

const PIECE: usize = 1 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["arcbox", out, size, layers @ ..] => arcbox(out, size.parse()?, layers),
        ["mkext4", out, size, inodes, tar] => mkext4_image(out, size.parse()?, inodes.parse()?, tar),
        ["inflate", layers @ ..] => inflate(layers),
        ["write", out, bytes] => write(out, bytes.parse()?, false),
        ["write", out, bytes, "direct"] => write(out, bytes.parse()?, true),
        _ => bail!("usage: peers arcbox|mkext4|inflate|write …"),
    }
}

/// Opens a layer, decompressing it when it starts as gzip does.
fn open(path: &str) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, 0)?;
    let reader = BufReader::with_capacity(PIECE, file);
    Ok(if magic == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}

fn arcbox(out: &str, size: u64, layers: &[&str]) -> Result<()> {
    let mut formatter = arcbox_ext4::Formatter::new(Path::new(out), 4096, size)?;
    for layer in layers {
        formatter.unpack_tar(BufReader::with_capacity(PIECE, open(layer)?))?;
    }
    formatter.close()?;
    Ok(())
}

fn inflate(layers: &[&str]) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    for layer in layers {
        let mut reader = open(layer)?;
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            total += count as u64;
        }
    }
    println!("{total}");
    Ok(())
}

/// Writes `bytes` of data that no file system folds away, in one pass, as the fastest way to fill a file.
fn write(out: &str, bytes: u64, direct: bool) -> Result<()> {
    let piece = if direct { 4 * PIECE } else { PIECE };
    let mut space = vec![0u8; piece + 4096];
    for (index, byte) in space.iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    let start = space.as_ptr().align_offset(4096);
    let data = &space[start..start + piece];
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if direct {
        options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    }
    let file = options.open(out)?;
    let whole = bytes.next_multiple_of(4096);
    let mut offset = 0;
    while offset < whole {
        let count = (whole - offset).min(piece as u64) as usize;
        file.write_all_at(&data[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// The `mkext4` crate wants every size before the first byte: one pass over the tar declares, a second one fills.
fn mkext4_image(out: &str, size: u64, inodes: u32, tar: &str) -> Result<()> {
    let mut options = Options::new(size.next_multiple_of(4096), *b"firebrick-bench!", 1_735_689_600);
    options.inodes = InodeCount::Exact(inodes);
    options.journal_blocks = Some(1024);
    let mut declared = Declared { builder: FsBuilder::new(options)?, paths: HashMap::new(), fills: Vec::new() };
    declared.paths.insert(PathBuf::new(), ROOT);
    // Unbuffered: a buffer would be thrown away at each seek.
    for entry in tar::Archive::new(File::open(tar)?).entries_with_seek()? {
        declared.add(entry?)?;
    }
    let fills = declared.fills;
    let layout = declared.builder.seal()?;
    let mut sink = mkext4::sink::FileSink::create(Path::new(out), layout.image_len())?;
    let mut writer = layout.writer(&mut sink)?;
    let source = File::open(tar)?;
    for (handle, offset, length) in fills {
        writer.fill(handle, &mut Range { source: &source, offset, end: offset + length })?;
    }
    writer.finish()?;
    Ok(())
}

/// What the first pass has declared so far.
struct Declared {
    builder: FsBuilder,
    paths: HashMap<PathBuf, InodeHandle>,
    /// Handle, offset in the tar, length.
    fills: Vec<(InodeHandle, u64, u64)>,
}

impl Declared {
    fn add<R: Read>(&mut self, entry: tar::Entry<'_, R>) -> Result<()> {
        let path: PathBuf = entry.path()?.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
        let header = entry.header();
        let mtime = (i64::try_from(header.mtime()?)?, 0);
        let meta = Meta::new((header.mode()? & 0o7777) as u16, header.uid()? as u32, header.gid()? as u32, mtime);
        if path.as_os_str().is_empty() {
            self.builder.set_meta(ROOT, meta)?;
            return Ok(());
        }
        let parent = self.parent(path.parent().unwrap_or(Path::new("")), meta)?;
        let name = path.file_name().and_then(|n| n.to_str()).context("a name is not UTF-8")?.to_owned();
        let link = entry.link_name()?.map(|target| target.into_owned());
        let handle = match header.entry_type() {
            tar::EntryType::Directory => match self.paths.get(&path) {
                Some(&known) => {
                    self.builder.set_meta(known, meta)?;
                    known
                }
                None => self.builder.mkdir(parent, &name, meta)?,
            },
            tar::EntryType::Symlink => {
                let target = link.context("a symlink has no target")?;
                self.builder.symlink(parent, &name, target.to_str().context("a target is not UTF-8")?, meta)?
            }
            tar::EntryType::Link => {
                let target = link.context("a hard link has no target")?;
                let target: PathBuf =
                    target.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
                let known = *self.paths.get(&target).context("a hard link's target is not there yet")?;
                self.builder.hardlink(parent, &name, known)?;
                known
            }
            tar::EntryType::Char | tar::EntryType::Block => {
                let major = header.device_major()?.unwrap_or(0);
                let minor = header.device_minor()?.unwrap_or(0);
                let kind = if header.entry_type() == tar::EntryType::Char {
                    SpecialKind::Char { major, minor }
                } else {
                    SpecialKind::Block { major, minor }
                };
                self.builder.mknod(parent, &name, meta, kind)?
            }
            tar::EntryType::Fifo => self.builder.mknod(parent, &name, meta, SpecialKind::Fifo)?,
            _ => {
                let file = self.builder.file(parent, &name, meta, entry.size())?;
                if entry.size() > 0 {
                    self.fills.push((file, entry.raw_file_position(), entry.size()));
                }
                file
            }
        };
        self.paths.insert(path, handle);
        Ok(())
    }

    fn parent(&mut self, path: &Path, meta: Meta) -> Result<InodeHandle> {
        if let Some(&known) = self.paths.get(path) {
            return Ok(known);
        }
        let above = self.parent(path.parent().unwrap_or(Path::new("")), meta)?;
        let name = path.file_name().and_then(|n| n.to_str()).context("a name is not UTF-8")?.to_owned();
        let made = self.builder.mkdir(above, &name, meta)?;
        self.paths.insert(path.to_owned(), made);
        Ok(made)
    }
}

/// A part of a file, read with positioned reads.
struct Range<'a> {
    source: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min((self.end - self.offset) as usize);
        let count = self.source.read_at(&mut buffer[..want], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
