//! An image as [`firebrick_inventory`] sees it: everything in it, from a walk, and where to read contents.

mod layers;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::ops::ControlFlow;

use anyhow::Context as _;
use firebrick_digest::{Digest, Hasher};
use firebrick_ext4::read as ext4;
use firebrick_inventory::{Contents, Entry, Inventory, Listing, ListingBuilder, NodeId, printable};
use firebrick_squashfs::read as squashfs;

use crate::error::CliError;
use crate::image_file::ImageFile;
use crate::volume::{Bytes, FileType, Volume};

pub(crate) use layers::Layers;

/// Lengths of blocks that are summed up in one squashfs, at most: those of 16 TiB of files.
const BLOCKS_MAX: u64 = 1 << 27;

/// An image with a list of everything in it.
pub(crate) struct Survey<'a> {
    pub(crate) image: &'a ImageFile,
    pub(crate) listing: Listing,
    /// Which layers it is made of, where it tells.
    pub(crate) layers: Option<Layers>,
    /// The regular files of a squashfs, whose inodes are not found by number.
    files: HashMap<u32, squashfs::Inode>,
}

impl<'a> Survey<'a> {
    /// Walks an image.
    pub(crate) fn of(image: &'a ImageFile) -> anyhow::Result<Survey<'a>> {
        let walking = || format!("cannot walk {:?}", image.path);
        let layers = Layers::of(image)?;
        let mut files = HashMap::new();
        let listing = match &image.filesystem {
            Volume::Ext4(filesystem) => walk_ext4(filesystem, layers.as_ref()),
            Volume::Squashfs(filesystem) => walk_squashfs(filesystem, &mut files),
        };
        Ok(Survey {
            listing: listing.with_context(walking)?,
            image,
            layers,
            files,
        })
    }

    /// Its packages.
    pub(crate) fn inventory(&self) -> anyhow::Result<Inventory> {
        Inventory::take(&self.listing, self)
            .with_context(|| format!("cannot look into {:?}", self.image.path))
    }

    /// What stands at a path that somebody gave.
    pub(crate) fn find(&self, path: &std::ffi::OsStr) -> anyhow::Result<NodeId> {
        self.listing.find_target(path.as_encoded_bytes()).ok_or_else(|| {
            CliError::NoSuchPath {
                path: path.into(),
                image: self.image.path.clone(),
            }
            .into()
        })
    }

    /// The path of a node for people, with a slash in front.
    pub(crate) fn shown(&self, id: NodeId) -> String {
        format!("/{}", printable(&self.listing.path(id)))
    }
}

impl Contents for Survey<'_> {
    fn read(
        &self,
        inode: u32,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        match &self.image.filesystem {
            Volume::Ext4(filesystem) => {
                let number = ext4::InodeNumber::new(inode).ok_or(io::ErrorKind::NotFound)?;
                let inode = filesystem.inode(number).map_err(io::Error::from)?;
                let mut reader = filesystem.open_file(&inode).map_err(io::Error::from)?;
                reader.skip(offset);
                pieces(&mut reader, 0, take)
            }
            Volume::Squashfs(filesystem) => {
                let inode = self.files.get(&inode).ok_or(io::ErrorKind::NotFound)?;
                let mut reader = filesystem.open_file(inode).map_err(io::Error::from)?;
                pieces(&mut reader, offset, take)
            }
        }
    }
}

/// All that a reader gives behind the first `skip` bytes.
fn pieces(
    reader: &mut dyn Read,
    mut skip: u64,
    take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let len = reader.read(&mut buffer)?;
        let piece = buffer.get(..len).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(len);
        skip -= skipped as u64;
        let piece = &piece[skipped..];
        if !piece.is_empty() && take(piece).is_break() {
            return Ok(());
        }
    }
}

fn walk_ext4(filesystem: &ext4::Filesystem<Bytes>, layers: Option<&Layers>) -> anyhow::Result<Listing> {
    let mut builder = ListingBuilder::new();
    let mut walk = filesystem.walk(filesystem.inode(ext4::InodeNumber::ROOT)?);
    while let Some(visit) = walk.advance()? {
        let inode = &visit.inode;
        let stat = inode.stat();
        let xattrs = filesystem.xattrs(inode)?;
        let layer = match (layers, stat.file_type) {
            (Some(layers), FileType::Regular) => {
                let block_size = u64::from(filesystem.summary().block_size);
                let first = filesystem.runs(inode)?.next().transpose()?;
                let block = first.and_then(|run| run.physical);
                block.and_then(|block| layers.at(block.saturating_mul(block_size)))
            }
            _ => None,
        };
        let target = match stat.file_type {
            FileType::Symlink => Some(filesystem.read_link(inode)?.into()),
            _ => None,
        };
        let entry = Entry {
            inode: stat.inode.get(),
            file_type: stat.file_type,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            stored: stat.allocated_bytes,
            target,
            device: stat.device,
            xattrs: digest_of(xattrs.iter().map(|(name, value)| (&**name, &**value))),
            layer,
        };
        builder.add(visit.path, entry)?;
    }
    Ok(builder.finish())
}

fn walk_squashfs(
    filesystem: &squashfs::Filesystem<Bytes>,
    files: &mut HashMap<u32, squashfs::Inode>,
) -> anyhow::Result<Listing> {
    let mut builder = ListingBuilder::new();
    let mut places = HashSet::new();
    let mut blocks_left = BLOCKS_MAX;
    let block_size = u64::from(filesystem.summary().block_size);
    let mut walk = filesystem.walk(filesystem.root()?);
    while let Some(visit) = walk.advance()? {
        let inode = visit.inode;
        let stat = inode.stat().clone();
        let xattrs = filesystem.xattrs(&inode)?;
        let target = match stat.file_type {
            FileType::Symlink => Some(filesystem.read_link(&inode)?.into()),
            _ => None,
        };
        let mut stored = 0;
        if stat.file_type == FileType::Regular && !files.contains_key(&stat.inode) {
            let blocks = stat.size.div_ceil(block_size.max(1));
            blocks_left = blocks_left.saturating_sub(blocks);
            if blocks_left > 0 && stat.size > 0 {
                let found = filesystem.stored(&inode)?;
                // Files of one content are stored once.
                stored = if places.insert(found.place) {
                    found.bytes
                } else {
                    0
                };
            }
            files.insert(stat.inode, inode);
        }
        let entry = Entry {
            inode: stat.inode,
            file_type: stat.file_type,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            stored,
            target,
            device: stat.device,
            xattrs: digest_of(xattrs.iter().map(|(name, value)| (&**name, &**value))),
            layer: None,
        };
        builder.add(visit.path, entry)?;
    }
    Ok(builder.finish())
}

/// The digest of attributes; `None` of none.
fn digest_of<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Digest> {
    let mut hasher = None;
    for (name, value) in xattrs {
        let hasher = hasher.get_or_insert_with(Hasher::new);
        // Lengths, so that no two sets run together to the same bytes.
        hasher.update(format!("{} {}\n", name.len(), value.len()).as_bytes());
        hasher.update(name);
        hasher.update(value);
    }
    hasher.map(Hasher::finish)
}
