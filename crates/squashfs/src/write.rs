//! Emits a filesystem: contents, then the tables in the order in which the kernel wants them, superblock last.

use std::io;

use firebrick_tree::{DeviceKind, Kind, Tree};
use zerocopy::{Immutable, IntoBytes};

use crate::compress::Encoder;
use crate::dir::{Named, listing};
use crate::error::WriteError;
use crate::format::{
    METADATA_UNCOMPRESSED, SQUASHFS_INVALID_BLK, SQUASHFS_MAGIC, Superblock, XattrId, XattrIdTable, flags,
    inode_type,
};
use crate::inode::{self, DirContent, FileContent};
use crate::metadata::{MetadataWriter, Position};
use crate::options::{Compression, Options};
use crate::pack::{Contents, Packed, pack};
use crate::plan::{Node, Plan};

/// What an image is written in, in bytes; its length is a multiple.
pub const BLOCK_LEN: usize = 4096;

/// How much is collected before it is written, in bytes.
const COLLECTED: usize = 1 << 18;

/// Takes an image's bytes in pieces of whole [`BLOCK_LEN`]s.
pub trait BlockSink {
    /// Writes from the 0-based block `start` on. Blocks come in rising order without gaps, but for the first, which comes last.
    ///
    /// # Errors
    /// What writing gives; the image is then not usable.
    fn write_blocks(&mut self, start: u64, bytes: &[u8]) -> io::Result<()>;
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image in bytes, a multiple of [`BLOCK_LEN`].
    pub size_bytes: u64,
    /// Files whose content is that of another, and is stored once.
    pub duplicates: u64,
}

/// Appends to an image. The first block is kept back until the end.
pub(crate) struct Appender<'a, S> {
    sink: &'a mut S,
    first: Vec<u8>,
    collected: Vec<u8>,
    /// The block where `collected` goes.
    next: u64,
}

impl<'a, S: BlockSink> Appender<'a, S> {
    fn new(sink: &'a mut S) -> Appender<'a, S> {
        Appender {
            sink,
            first: Vec::with_capacity(BLOCK_LEN),
            collected: Vec::with_capacity(COLLECTED),
            next: 1,
        }
    }

    /// Where the next byte goes.
    pub(crate) fn position(&self) -> u64 {
        match self.first.len() {
            BLOCK_LEN => self.next * BLOCK_LEN as u64 + self.collected.len() as u64,
            len => len as u64,
        }
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (first, bytes) = bytes.split_at(bytes.len().min(BLOCK_LEN - self.first.len()));
        self.first.extend_from_slice(first);
        self.collected.extend_from_slice(bytes);
        if self.collected.len() < COLLECTED {
            return Ok(());
        }
        let whole = self.collected.len() / BLOCK_LEN * BLOCK_LEN;
        self.sink.write_blocks(self.next, &self.collected[..whole])?;
        self.next += (whole / BLOCK_LEN) as u64;
        self.collected.drain(..whole);
        Ok(())
    }

    /// Fills the last block with zeros and writes the first. The length of all.
    fn finish(mut self, superblock: &Superblock) -> io::Result<u64> {
        self.first.resize(BLOCK_LEN, 0);
        let padded = self.collected.len().next_multiple_of(BLOCK_LEN);
        self.collected.resize(padded, 0);
        if padded > 0 {
            self.sink.write_blocks(self.next, &self.collected)?;
        }
        let superblock = superblock.as_bytes();
        self.first[..superblock.len()].copy_from_slice(superblock);
        self.sink.write_blocks(0, &self.first)?;
        Ok(self.position())
    }
}

/// Compresses contents and writes everything. `tree` is the tree that was planned.
///
/// # Errors
/// [`WriteError`] if contents cannot be read back, or the sink fails.
pub fn write(
    plan: &Plan,
    tree: &Tree,
    contents: &impl Contents,
    sink: &mut impl BlockSink,
) -> Result<Summary, WriteError> {
    let failed = |source| WriteError::Write { source };
    let mut out = Appender::new(sink);
    let options = compressor_options(&plan.options);
    out.append(Superblock::default().as_bytes()).map_err(failed)?;
    out.append(&options).map_err(failed)?;
    let packed = pack(plan, tree, contents, &mut out)?;
    let encoder = Encoder::new(&plan.options).map_err(|source| WriteError::Compress { source })?;
    let tables = Tables {
        plan,
        tree,
        packed: &packed,
        encoder,
        references: Vec::with_capacity(plan.nodes.len()),
    };
    let mut superblock = tables.write(&mut out).map_err(failed)?;
    if !options.is_empty() {
        superblock
            .flags
            .set(superblock.flags.get() | flags::COMPRESSOR_OPTIONS);
    }
    superblock.bytes_used = out.position().into();
    Ok(Summary {
        size_bytes: out.finish(&superblock).map_err(failed)?,
        duplicates: packed.duplicates(),
    })
}

/// What follows the superblock, where it is not what everybody assumes. The kernel wants it for LZ4 always.
fn compressor_options(options: &Options) -> Vec<u8> {
    let level = options.effective_level();
    let fields: Vec<u8> = match options.compression {
        Compression::Lz4 => [1_u32, 0].into_iter().flat_map(u32::to_le_bytes).collect(),
        Compression::Zstd if level != 15 => level.to_le_bytes().to_vec(),
        // Level, window bits, strategies.
        Compression::Gzip if level != 9 => {
            [&level.to_le_bytes()[..], &15_u16.to_le_bytes(), &[0; 2]].concat()
        }
        _ => return Vec::new(),
    };
    let len = u16::try_from(fields.len()).expect("a few bytes") | METADATA_UNCOMPRESSED;
    [&len.to_le_bytes()[..], &fields].concat()
}

/// Writes everything behind the contents.
struct Tables<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    packed: &'a Packed,
    encoder: Encoder,
    /// Where each inode lies, by number from 1.
    references: Vec<u64>,
}

impl<'a> Tables<'a> {
    fn write<S: BlockSink>(mut self, out: &mut Appender<'_, S>) -> io::Result<Superblock> {
        let plan = self.plan;
        let (inodes, directories) = self.inodes()?;
        let inode_table_start = out.position();
        out.append(&inodes)?;
        let directory_table_start = out.position();
        out.append(&directories)?;
        let fragments = self.packed.fragments();
        let fragment_table_start = self.table(out, fragments)?;
        let references = std::mem::take(&mut self.references);
        let lookup_table_start = self.table(
            out,
            &references.iter().map(|at| at.to_le_bytes()).collect::<Vec<_>>(),
        )?;
        let ids: Vec<_> = plan.ids.iter().map(|id| id.to_le_bytes()).collect();
        let id_table_start = self.table(out, &ids)?;
        let xattr_id_table_start = self.xattrs(out)?;
        let has_xattrs = xattr_id_table_start != SQUASHFS_INVALID_BLK;
        let all_flags = flags::DUPLICATES | flags::EXPORTABLE | if has_xattrs { 0 } else { flags::NO_XATTRS };
        let block_size = plan.options.block_size;
        let narrow = |len: usize| u32::try_from(len).map_err(io::Error::other);
        Ok(Superblock {
            s_magic: SQUASHFS_MAGIC.into(),
            inodes: plan.inodes().into(),
            mkfs_time: plan.mkfs_time.into(),
            block_size: block_size.into(),
            fragments: narrow(fragments.len())?.into(),
            compression: plan.options.compression.id().into(),
            block_log: (block_size.trailing_zeros() as u16).into(),
            flags: all_flags.into(),
            no_ids: u16::try_from(plan.ids.len()).map_err(io::Error::other)?.into(),
            s_major: 4.into(),
            s_minor: 0.into(),
            root_inode: references.last().copied().unwrap_or_default().into(),
            bytes_used: 0.into(),
            id_table_start: id_table_start.into(),
            xattr_id_table_start: xattr_id_table_start.into(),
            inode_table_start: inode_table_start.into(),
            directory_table_start: directory_table_start.into(),
            fragment_table_start: fragment_table_start.into(),
            lookup_table_start: lookup_table_start.into(),
        })
    }

    /// The tables of inodes and of directories, which refer to each other.
    fn inodes(&mut self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let plan = self.plan;
        let places: std::collections::HashMap<_, _> = plan.files.iter().copied().zip(0..).collect();
        let (mut inodes, mut directories) = (MetadataWriter::default(), MetadataWriter::default());
        for (node, number) in plan.nodes.iter().zip(1..) {
            let encoded = match &self.tree.inode(node.id).kind {
                Kind::Directory(_) => {
                    let content = self.directory(node, &mut directories)?;
                    inode::directory(node, number, &content)
                }
                Kind::File(_) => {
                    let content = places.get(&node.id).map(|&place| self.packed.file(place));
                    inode::file(node, number, &content.unwrap_or(FileContent::default()))
                }
                Kind::Symlink(target) => inode::symlink(node, number, target),
                Kind::Device { kind, major, minor } => {
                    inode::device(node, number, type_of_device(*kind), *major, *minor)
                }
                Kind::Fifo => inode::ipc(node, number, inode_type::FIFO),
                Kind::Socket => inode::ipc(node, number, inode_type::SOCKET),
            };
            self.references.push(inodes.position()?.reference());
            inodes.append(&encoded, &mut self.encoder)?;
        }
        let (inodes, _) = inodes.finish(&mut self.encoder)?;
        let (directories, _) = directories.finish(&mut self.encoder)?;
        Ok((inodes, directories))
    }

    /// Writes a directory's listing. What it names has been written before.
    fn directory(&mut self, node: &Node, table: &mut MetadataWriter) -> io::Result<DirContent<'a>> {
        let (plan, tree) = (self.plan, self.tree);
        let names = tree.directory(node.id).into_iter().flatten();
        let entries: Vec<Named<'a>> = names
            .map(|(name, &child)| {
                let number = plan.numbers[child.index()];
                Named {
                    name: name.as_bytes(),
                    number,
                    reference: self.references[number as usize - 1],
                    inode_type: type_of(&tree.inode(child).kind),
                }
            })
            .collect();
        let listing = listing(&entries);
        let (at, start) = (table.position()?, table.len());
        table.append(&listing.bytes, &mut self.encoder)?;
        let in_table =
            |(index, name): (u32, &'a [u8])| Ok((index, table.block_of(start + u64::from(index))?, name));
        Ok(DirContent {
            at,
            len: u32::try_from(listing.bytes.len()).map_err(io::Error::other)?,
            index: listing
                .index
                .into_iter()
                .map(in_table)
                .collect::<io::Result<_>>()?,
        })
    }

    /// A table of records in metadata blocks, and behind them where each block lies: the start of that list.
    fn table<S: BlockSink, T: IntoBytes + Immutable>(
        &mut self,
        out: &mut Appender<'_, S>,
        records: &[T],
    ) -> io::Result<u64> {
        let start = out.position();
        let mut stream = MetadataWriter::default();
        stream.append(records.as_bytes(), &mut self.encoder)?;
        let (bytes, starts) = stream.finish(&mut self.encoder)?;
        out.append(&bytes)?;
        let list_start = out.position();
        for block in starts {
            out.append(&(start + u64::from(block)).to_le_bytes())?;
        }
        Ok(list_start)
    }

    /// The sets of attributes, and the table of them, which is the last thing in the image.
    fn xattrs<S: BlockSink>(&mut self, out: &mut Appender<'_, S>) -> io::Result<u64> {
        if self.plan.xattrs.is_empty() {
            return Ok(SQUASHFS_INVALID_BLK);
        }
        let xattr_table_start = out.position();
        let mut stream = MetadataWriter::default();
        let mut ids = MetadataWriter::default();
        for set in &self.plan.xattrs {
            let at: Position = stream.position()?;
            let id = XattrId {
                xattr: at.reference().into(),
                count: set.count.into(),
                size: u32::try_from(set.bytes.len()).map_err(io::Error::other)?.into(),
            };
            stream.append(&set.bytes, &mut self.encoder)?;
            ids.append(id.as_bytes(), &mut self.encoder)?;
        }
        let (bytes, _) = stream.finish(&mut self.encoder)?;
        out.append(&bytes)?;
        let start = out.position();
        let (bytes, starts) = ids.finish(&mut self.encoder)?;
        out.append(&bytes)?;
        let table_start = out.position();
        let table = XattrIdTable {
            xattr_table_start: xattr_table_start.into(),
            xattr_ids: u32::try_from(self.plan.xattrs.len())
                .map_err(io::Error::other)?
                .into(),
            unused: 0.into(),
        };
        out.append(table.as_bytes())?;
        for block in starts {
            out.append(&(start + u64::from(block)).to_le_bytes())?;
        }
        Ok(table_start)
    }
}

fn type_of_device(kind: DeviceKind) -> u16 {
    match kind {
        DeviceKind::Char => inode_type::CHRDEV,
        DeviceKind::Block => inode_type::BLKDEV,
    }
}

fn type_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => inode_type::DIR,
        Kind::File(_) => inode_type::REG,
        Kind::Symlink(_) => inode_type::SYMLINK,
        Kind::Device { kind, .. } => type_of_device(*kind),
        Kind::Fifo => inode_type::FIFO,
        Kind::Socket => inode_type::SOCKET,
    }
}
