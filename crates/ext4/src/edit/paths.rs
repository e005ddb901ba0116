//! The changes, by path. `..` and symbolic links on the way are followed inside the image; what a path ends in is meant
//! itself, even where it is a symbolic link, unless a method says otherwise.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use firebrick_reader::{Directories, LastSymlink, PathError, Tangle};
use firebrick_tree::{DeviceKind, Metadata, Timestamp, Xattrs};

use super::folder::{Entry, Folder, Named, type_code};
use super::{EditError, Editor, Target, wide};
use crate::format::{EXT4_ROOT_INO, mode};
use crate::inode::device_block;
use crate::read::{Fault, FileType, Inode, Place, ReadError};

/// Names of a file at most (`EXT4_LINK_MAX`).
const LINK_MAX: u16 = 65000;
/// Longest target of a symbolic link that fits the inode.
const FAST_SYMLINK_MAX: usize = 59;
/// Longest target that Linux takes.
const SYMLINK_MAX: usize = 4095;
/// What `e2fsck` puts into the root directory if it is not there.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A node without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A unix socket's name.
    Socket,
    /// A device node.
    Device {
        /// Character or block.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Where a name stands or is to stand.
struct Spot {
    folder: Inode,
    name: Vec<u8>,
    /// What is there.
    entry: Option<Entry>,
}

impl Spot {
    fn number(&self) -> u32 {
        self.folder.number().get()
    }

    fn is_needed(&self) -> bool {
        self.number() == EXT4_ROOT_INO && self.name == LOST_AND_FOUND
    }
}

/// A path as messages show it.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

impl<T: Target> Editor<T> {
    /// What stands at a path now; `None` where nothing does. Its content is read with [`Editor::filesystem`], if it is no
    /// folder.
    ///
    /// # Errors
    /// What is wrong on the way.
    pub fn find(&self, path: &[u8], last: LastSymlink) -> Result<Option<Inode>, EditError> {
        match firebrick_reader::lookup(self, path, last) {
            Ok(inode) => Ok(Some(inode)),
            Err(EditError::Read(ReadError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Splits a path into the folder, which must be there, and the name in it.
    fn spot(&self, path: &[u8]) -> Result<Spot, EditError> {
        let end = path
            .iter()
            .rposition(|byte| *byte != b'/')
            .map_or(0, |at| at.saturating_add(1));
        let whole = path.get(..end).unwrap_or_default();
        let start = whole
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at.saturating_add(1));
        let (above, name) = whole.split_at(start.min(whole.len()));
        if name.is_empty() || name.len() > 255 || name.contains(&0) || matches!(name, b"." | b"..") {
            return Err(EditError::Name { path: shown(path) });
        }
        let folder = firebrick_reader::lookup(self, above, LastSymlink::Follow)?;
        if folder.stat().file_type != FileType::Directory {
            return Err(ReadError::NotDirectory { path: shown(above) }.into());
        }
        let entry = self.entry(&folder, name)?;
        Ok(Spot {
            folder,
            name: name.to_vec(),
            entry,
        })
    }

    /// A place for something new. A file that is there goes away; a folder stays, and is an error.
    fn clear_spot(&mut self, path: &[u8]) -> Result<Spot, EditError> {
        let spot = self.spot(path)?;
        if spot.is_needed() {
            return Err(EditError::Needed { path: shown(path) });
        }
        if let Some(entry) = spot.entry {
            let inode = self.inode_of(entry)?;
            if inode.stat().file_type == FileType::Directory {
                return Err(EditError::IsDirectory { path: shown(path) });
            }
            self.remove_entry(spot.number(), &spot.name)?;
            self.drop_name(&inode)?;
        }
        Ok(spot)
    }

    /// Takes one name from an inode that is no folder, and the inode itself with the last one.
    fn drop_name(&mut self, inode: &Inode) -> Result<(), EditError> {
        match inode.stat().links {
            0 | 1 => self.release_inode(inode),
            links => self.change_inode(inode, |raw| {
                raw.fields.i_links_count = links.saturating_sub(1).into();
            }),
        }
    }

    fn name_it(&mut self, spot: &Spot, inode: u32, file_type: FileType) -> Result<(), EditError> {
        let file_type = type_code(file_type);
        self.add_entry(spot.number(), &spot.name, Entry { inode, file_type })
    }

    /// Writes a file of `len` bytes, in place of any that is there. Other names of that one keep it as it was.
    ///
    /// # Errors
    /// [`EditError::NoSpace`], [`EditError::NoInodes`], [`EditError::IsDirectory`]; [`EditError::Content`] and
    /// [`EditError::Length`] where `content` fails.
    pub fn write_file(
        &mut self,
        path: &[u8],
        meta: &Metadata,
        len: u64,
        content: &mut dyn Read,
    ) -> Result<(), EditError> {
        let limit = self.form.file_limit();
        let too_large = || EditError::FileTooLarge {
            path: shown(path),
            size: len,
            limit,
        };
        if len > limit {
            return Err(too_large());
        }
        let spot = self.clear_spot(path)?;
        let parts = self.store(path, len, content)?;
        let number = self.take_inode(spot.number(), false)?;
        let mut raw = self.new_inode(mode::S_IFREG, meta);
        raw.set_size(len);
        self.put_xattrs(path, number, &mut raw, &meta.xattrs)?;
        if !self.put_map(number, &mut raw, &parts)? {
            return Err(too_large());
        }
        self.put_inode(number, raw)?;
        self.note_large_file(len);
        self.name_it(&spot, number, FileType::Regular)
    }

    /// Makes an empty folder.
    ///
    /// # Errors
    /// [`EditError::Exists`] where something is; as for files otherwise.
    pub fn make_directory(&mut self, path: &[u8], meta: &Metadata) -> Result<(), EditError> {
        let spot = self.spot(path)?;
        if spot.entry.is_some() {
            return Err(EditError::Exists { path: shown(path) });
        }
        let number = self.take_inode(spot.number(), true)?;
        let mut raw = self.new_inode(mode::S_IFDIR, meta);
        self.put_xattrs(path, number, &mut raw, &meta.xattrs)?;
        // Its blocks come with the names that it will have, when all is written.
        if !self.count_xattr_block(&mut raw) {
            return Err(EditError::Name { path: shown(path) });
        }
        self.put_inode(number, raw)?;
        let folder = Folder {
            parent: spot.number(),
            changed: true,
            ..Folder::default()
        };
        self.folders.insert(number, folder);
        self.name_it(&spot, number, FileType::Directory)
    }

    /// Makes a symbolic link, in place of any file that is there.
    ///
    /// # Errors
    /// [`EditError::Target`] for a target that cannot be; as for files otherwise.
    pub fn make_symlink(&mut self, path: &[u8], target: &[u8], meta: &Metadata) -> Result<(), EditError> {
        let limit = self.form.block_len.saturating_sub(1).min(SYMLINK_MAX);
        if target.is_empty() || target.len() > limit || target.contains(&0) {
            return Err(EditError::Target {
                path: shown(path),
                len: target.len(),
                limit,
            });
        }
        let spot = self.clear_spot(path)?;
        let number = self.take_inode(spot.number(), false)?;
        let mut raw = self.new_inode(mode::S_IFLNK, meta);
        raw.set_mode(mode::S_IFLNK, 0o777);
        raw.set_size(wide(target.len()));
        self.put_xattrs(path, number, &mut raw, &meta.xattrs)?;
        let counted = if target.len() <= FAST_SYMLINK_MAX {
            let bytes = raw.fields.i_block.iter_mut().zip(target);
            bytes.for_each(|(to, from)| *to = *from);
            self.count_xattr_block(&mut raw)
        } else {
            let parts = self.store(path, wide(target.len()), &mut &*target)?;
            self.put_map(number, &mut raw, &parts)?
        };
        if !counted {
            return Err(EditError::Name { path: shown(path) });
        }
        self.put_inode(number, raw)?;
        self.name_it(&spot, number, FileType::Symlink)
    }

    /// Makes a device node, a named pipe or a socket's name, in place of any file that is there.
    ///
    /// # Errors
    /// [`EditError::Device`] for a number that Linux does not have; as for files otherwise.
    pub fn make_node(&mut self, path: &[u8], node: Node, meta: &Metadata) -> Result<(), EditError> {
        let (type_bits, file_type, i_block) = match node {
            Node::Fifo => (mode::S_IFIFO, FileType::Fifo, [0; 60]),
            Node::Socket => (mode::S_IFSOCK, FileType::Socket, [0; 60]),
            Node::Device { kind, major, minor } => {
                let i_block = device_block(major, minor).ok_or_else(|| EditError::Device {
                    path: shown(path),
                    major,
                    minor,
                })?;
                match kind {
                    DeviceKind::Char => (mode::S_IFCHR, FileType::CharDevice, i_block),
                    DeviceKind::Block => (mode::S_IFBLK, FileType::BlockDevice, i_block),
                }
            }
        };
        let spot = self.clear_spot(path)?;
        let number = self.take_inode(spot.number(), false)?;
        let mut raw = self.new_inode(type_bits, meta);
        raw.fields.i_block = i_block;
        self.put_xattrs(path, number, &mut raw, &meta.xattrs)?;
        if !self.count_xattr_block(&mut raw) {
            return Err(EditError::Name { path: shown(path) });
        }
        self.put_inode(number, raw)?;
        self.name_it(&spot, number, file_type)
    }

    /// Gives what stands at `existing` one more name, in place of any file that is there.
    ///
    /// # Errors
    /// [`EditError::IsDirectory`] for folders, which have one name; [`EditError::TooManyLinks`].
    pub fn make_hardlink(&mut self, existing: &[u8], path: &[u8]) -> Result<(), EditError> {
        let old = firebrick_reader::lookup(self, existing, LastSymlink::Keep)?;
        if old.stat().file_type == FileType::Directory {
            return Err(EditError::IsDirectory {
                path: shown(existing),
            });
        }
        let there = self.spot(path)?.entry;
        if there.is_some_and(|entry| entry.inode == old.number().get()) {
            return Ok(());
        }
        let links = old.stat().links;
        if links >= LINK_MAX {
            return Err(EditError::TooManyLinks { path: shown(path) });
        }
        let spot = self.clear_spot(path)?;
        self.change_inode(&old, |raw| {
            raw.fields.i_links_count = links.saturating_add(1).into();
        })?;
        self.name_it(&spot, old.number().get(), old.stat().file_type)
    }

    /// Removes what stands at a path, a folder with all that is in it.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where nothing is; [`EditError::Needed`] for the root and `/lost+found`.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), EditError> {
        let spot = match self.spot(path) {
            Err(EditError::Name { .. }) if path.iter().all(|byte| matches!(byte, b'/' | b'.')) => {
                return Err(EditError::Needed { path: shown(path) });
            }
            spot => spot?,
        };
        let Some(entry) = spot.entry else {
            return Err(ReadError::NotFound { path: shown(path) }.into());
        };
        if spot.is_needed() {
            return Err(EditError::Needed { path: shown(path) });
        }
        let inode = self.inode_of(entry)?;
        // The name first: where names do not say what they name, reading them reads inodes.
        self.remove_entry(spot.number(), &spot.name)?;
        if inode.stat().file_type == FileType::Directory {
            self.remove_tree(inode)
        } else {
            self.drop_name(&inode)
        }
    }

    /// Removes a folder and all below, but for its name.
    fn remove_tree(&mut self, top: Inode) -> Result<(), EditError> {
        let mut seen = HashSet::new();
        let mut pending = vec![top];
        let mut folders = Vec::new();
        while let Some(folder) = pending.pop() {
            if folder.number().get() == EXT4_ROOT_INO || !seen.insert(folder.number()) {
                return Err(Self::tangled(&folder, Tangle::TwoNames));
            }
            for (_, number) in self.entries_of(&folder)? {
                let inode = self.inode(number)?;
                match inode.stat().file_type {
                    FileType::Directory => pending.push(inode),
                    _ => self.drop_name(&inode)?,
                }
            }
            folders.push(folder);
        }
        folders.iter().try_for_each(|folder| self.release_inode(folder))
    }

    /// Moves what stands at `from` to `to`, in place of any file that is there.
    ///
    /// # Errors
    /// [`EditError::BelowItself`] for a folder into itself; as for files otherwise.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), EditError> {
        let old = self.spot(from)?;
        let Some(entry) = old.entry else {
            return Err(ReadError::NotFound { path: shown(from) }.into());
        };
        if old.is_needed() {
            return Err(EditError::Needed { path: shown(from) });
        }
        let there = self.spot(to)?;
        if there.entry.is_some_and(|there| there.inode == entry.inode) {
            // Two names of one file: as in rename(2), both stay; and so does one that is moved to itself.
            return Ok(());
        }
        let inode = self.inode_of(entry)?;
        let is_directory = inode.stat().file_type == FileType::Directory;
        if is_directory && self.is_below(&there.folder, entry.inode)? {
            return Err(EditError::BelowItself { path: shown(from) });
        }
        let new = self.clear_spot(to)?;
        self.remove_entry(old.number(), &old.name)?;
        self.add_entry(new.number(), &new.name, entry)?;
        if is_directory {
            let folder = self.folder(entry.inode)?;
            folder.parent = new.number();
            folder.changed = true;
        }
        Ok(())
    }

    /// Whether a folder is `number` or somewhere below it.
    fn is_below(&self, folder: &Inode, number: u32) -> Result<bool, EditError> {
        let mut here = folder.clone();
        let mut seen = HashSet::new();
        loop {
            let at = here.number().get();
            if at == number {
                return Ok(true);
            }
            if at == EXT4_ROOT_INO {
                return Ok(false);
            }
            if !seen.insert(at) {
                return Err(Self::tangled(&here, Tangle::TwoNames));
            }
            here = self.inode(self.parent_of(&here)?)?;
        }
    }

    /// Sets permissions, set-id and sticky bits (`0o7777`) of what a path leads to, symbolic links followed.
    ///
    /// # Errors
    /// Where nothing stands there.
    pub fn set_mode(&mut self, path: &[u8], permissions: u16) -> Result<(), EditError> {
        let inode = firebrick_reader::lookup(self, path, LastSymlink::Follow)?;
        self.change_inode(&inode, |raw| {
            let type_bits = raw.fields.i_mode.get() & mode::S_IFMT;
            raw.set_mode(type_bits, permissions);
        })
    }

    /// Sets owner and group.
    ///
    /// # Errors
    /// Where nothing stands there.
    pub fn set_owner(&mut self, path: &[u8], uid: u32, gid: u32) -> Result<(), EditError> {
        let inode = firebrick_reader::lookup(self, path, LastSymlink::Keep)?;
        self.change_inode(&inode, |raw| raw.set_owner(uid, gid))
    }

    /// Sets the times of last access and modification.
    ///
    /// # Errors
    /// Where nothing stands there.
    pub fn set_times(&mut self, path: &[u8], time: Timestamp) -> Result<(), EditError> {
        let inode = firebrick_reader::lookup(self, path, LastSymlink::Keep)?;
        self.change_inode(&inode, |raw| raw.set_times(time, false))
    }

    /// Sets all extended attributes; those that were there before are gone.
    ///
    /// # Errors
    /// [`EditError::Xattr`] where they do not fit.
    pub fn set_xattrs(&mut self, path: &[u8], xattrs: &Xattrs) -> Result<(), EditError> {
        let inode = firebrick_reader::lookup(self, path, LastSymlink::Keep)?;
        let had_block = self.raw_inode(&inode).xattr_block() != 0;
        if had_block {
            self.release_xattr_block(&inode)?;
        }
        let mut raw = self.raw_inode(&inode);
        raw.set_xattr_block(0);
        self.clear_xattrs(&mut raw);
        let number = inode.number().get();
        self.put_xattrs(path, number, &mut raw, xattrs)?;
        let block_bytes = self.form.block_bytes();
        let had = inode.stat().allocated_bytes.checked_div(block_bytes).unwrap_or(0);
        let has_block = raw.xattr_block() != 0;
        let blocks = had
            .saturating_sub(had_block.into())
            .saturating_add(has_block.into());
        if !self.set_block_count(&mut raw, blocks) {
            return Err(EditError::Name { path: shown(path) });
        }
        self.put_inode(number, raw)
    }
}

/// Folders as paths see them while they are changed.
impl<T: Target> Directories for Editor<T> {
    type Inode = Inode;
    type Entry = Named;
    type Error = EditError;

    fn root_inode(&self) -> Result<Inode, EditError> {
        self.inode(EXT4_ROOT_INO)
    }

    fn file_type(inode: &Inode) -> FileType {
        inode.stat().file_type
    }

    fn number(inode: &Inode) -> u32 {
        inode.number().get()
    }

    fn target(&self, link: &Inode) -> Result<Vec<u8>, EditError> {
        Ok(self.filesystem.read_link(link)?)
    }

    fn find_inode(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, EditError> {
        let entry = self.entry(directory, name)?;
        entry.map(|entry| self.inode_of(entry)).transpose()
    }

    fn entries_backwards(&self, directory: &Inode) -> Result<Vec<Named>, EditError> {
        let mut entries = self.entries_of(directory)?;
        entries.sort_by(|a, b| b.0.cmp(&a.0));
        Ok(entries)
    }

    fn name(entry: &Named) -> &[u8] {
        &entry.0
    }

    fn entry_inode(&self, entry: &Named) -> Result<Inode, EditError> {
        self.inode(entry.1)
    }

    fn budget(&self) -> u64 {
        self.filesystem.geometry.blocks
    }

    fn cost(&self, directory: &Inode) -> Result<u64, EditError> {
        match directory.stat().size {
            0 => Ok(0),
            _ => Ok(self.filesystem.directory_blocks(directory)?),
        }
    }

    fn tangled(directory: &Inode, tangle: Tangle) -> EditError {
        let place = Place::Directory {
            inode: directory.number(),
            block: None,
        };
        let fault = Fault::Structure(match tangle {
            Tangle::TwoNames => "it has more than one name",
            Tangle::OverBudget => "with it, directories have more blocks than the filesystem",
        });
        ReadError::corrupt(place, fault).into()
    }
}

impl From<PathError> for EditError {
    fn from(error: PathError) -> EditError {
        ReadError::from(error).into()
    }
}
