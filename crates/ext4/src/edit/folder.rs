//! Folders in memory, and all their blocks written again.

use std::collections::BTreeMap;

use super::map::Part;
use super::paths::shown;
use super::{EditError, Editor, Target, narrow, wide};
use crate::dir::{DirForm, DirName, Packing};
use crate::format::{EXT4_ROOT_INO, file_type, inode_flags};
use crate::read::{FileType, Inode, Place};

/// A directory counts its links up to here; with more it shows 1 (`EXT4_LINK_MAX`).
const LINK_MAX: u64 = 65000;

/// A folder's names.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// What its `..` names.
    pub(super) parent: u32,
    pub(super) entries: BTreeMap<Box<[u8]>, Entry>,
    pub(super) changed: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) inode: u32,
    /// As directories keep it; never 0.
    pub(super) file_type: u8,
}

/// A name and its inode's number.
pub(super) type Named = (Box<[u8]>, u32);

/// How directories keep a type.
pub(super) fn type_code(file_type: FileType) -> u8 {
    match file_type {
        FileType::Regular => file_type::REG_FILE,
        FileType::Directory => file_type::DIR,
        FileType::CharDevice => file_type::CHRDEV,
        FileType::BlockDevice => file_type::BLKDEV,
        FileType::Fifo => file_type::FIFO,
        FileType::Socket => file_type::SOCK,
        FileType::Symlink => file_type::SYMLINK,
    }
}

impl<T: Target> Editor<T> {
    /// The names of a folder, to look at or to change.
    pub(super) fn folder(&mut self, number: u32) -> Result<&mut Folder, EditError> {
        if !self.folders.contains_key(&number) {
            let inode = self.inode(number)?;
            let folder = self.load_folder(&inode)?;
            self.folders.insert(number, folder);
        }
        Ok(self.folders.entry(number).or_default())
    }

    fn load_folder(&self, inode: &Inode) -> Result<Folder, EditError> {
        let mut entries = BTreeMap::new();
        for entry in self.filesystem.read_dir(inode)? {
            let kind = match entry.file_type {
                Some(kind) => kind,
                None => self.filesystem.inode(entry.inode)?.stat().file_type,
            };
            let value = Entry {
                inode: entry.inode.get(),
                file_type: type_code(kind),
            };
            entries.insert(entry.name, value);
        }
        Ok(Folder {
            parent: self.filesystem.parent_of(inode)?.get(),
            entries,
            changed: false,
        })
    }

    /// What a folder has under a name.
    pub(super) fn entry(&self, folder: &Inode, name: &[u8]) -> Result<Option<Entry>, EditError> {
        if let Some(loaded) = self.folders.get(&folder.number().get()) {
            return Ok(loaded.entries.get(name).copied());
        }
        let Some(number) = self.filesystem.find(folder, name)? else {
            return Ok(None);
        };
        let file_type = type_code(self.filesystem.inode(number)?.stat().file_type);
        Ok(Some(Entry {
            inode: number.get(),
            file_type,
        }))
    }

    /// Puts a name into a folder, where none is.
    pub(super) fn add_entry(&mut self, folder: u32, name: &[u8], entry: Entry) -> Result<(), EditError> {
        let folder = self.folder(folder)?;
        folder.entries.insert(name.into(), entry);
        folder.changed = true;
        Ok(())
    }

    /// Takes a name out of a folder.
    pub(super) fn remove_entry(&mut self, folder: u32, name: &[u8]) -> Result<(), EditError> {
        let folder = self.folder(folder)?;
        folder.entries.remove(name);
        folder.changed = true;
        Ok(())
    }

    /// Writes all folders that changed.
    pub(super) fn flush_folders(&mut self) -> Result<(), EditError> {
        for (number, folder) in std::mem::take(&mut self.folders) {
            if folder.changed {
                self.put_folder(number, &folder)?;
            }
        }
        Ok(())
    }

    fn put_folder(&mut self, number: u32, folder: &Folder) -> Result<(), EditError> {
        let inode = self.inode(number)?;
        let file_types = self.form.folders.file_types;
        let subfolders = folder
            .entries
            .values()
            .filter(|entry| entry.file_type == file_type::DIR)
            .count();
        let names: Vec<DirName<'_>> = folder
            .entries
            .iter()
            .map(|(name, entry)| DirName {
                name,
                inode: entry.inode,
                file_type: if file_types { entry.file_type } else { 0 },
            })
            .collect();
        let without_index = DirForm {
            index: None,
            ..self.form.folders
        };
        let packing = Packing::new(names.clone(), self.form.folders)
            .or_else(|_| Packing::new(names, without_index))
            // Never: lists have no limit.
            .map_err(|_| EditError::Name { path: shown(b"/") })?;
        let mut raw = self.raw_inode(&inode);
        let seed = self.form.inode_seed(number, raw.fields.i_generation.get());
        let parent = if number == EXT4_ROOT_INO {
            number
        } else {
            folder.parent
        };
        let bytes = packing.bytes(number, parent, seed);
        let parts = self.folder_blocks(&inode, packing.block_count())?;
        let mut rest = bytes.as_slice();
        let place = Place::Directory {
            inode: inode.number(),
            block: None,
        };
        for (_, first, count) in &parts {
            let len = narrow(count.saturating_mul(self.form.block_bytes())).min(rest.len());
            let (now, later) = rest.split_at(len);
            self.put_blocks(now, *first, place)?;
            rest = later;
        }
        let flags = raw.fields.i_flags.get() & !inode_flags::INDEX;
        raw.fields.i_flags = (flags
            | if packing.is_indexed() {
                inode_flags::INDEX
            } else {
                0
            })
        .into();
        raw.set_size(wide(bytes.len()));
        let links = wide(subfolders).saturating_add(2);
        raw.fields.i_links_count = u16::try_from(links)
            .ok()
            .filter(|_| links <= LINK_MAX)
            .unwrap_or(1)
            .into();
        if !self.put_map(number, &mut raw, &parts)? {
            let needed_bytes = wide(bytes.len());
            return Err(EditError::NoSpace {
                needed_bytes,
                free_bytes: 0,
            });
        }
        self.put_inode(number, raw)
    }

    /// The blocks for a folder: those it has, as far as it needs them, and new ones. Its map is given back.
    fn folder_blocks(&mut self, inode: &Inode, wanted: u64) -> Result<Vec<Part>, EditError> {
        let place = Place::Directory {
            inode: inode.number(),
            block: None,
        };
        // A new folder has no map yet.
        let claims = if inode.stat().size == 0 {
            crate::read::Claims::default()
        } else {
            self.filesystem.claims(inode)?
        };
        for block in &claims.map {
            self.release_blocks(*block, 1, place)?;
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut have = 0_u64;
        for (_, first, count) in claims.content {
            let kept = count.min(wanted.saturating_sub(have));
            if kept > 0 {
                parts.push((have, first, kept));
            }
            if count > kept {
                self.release_blocks(first.saturating_add(kept), count.saturating_sub(kept), place)?;
            }
            have = have.saturating_add(kept);
        }
        let missing = wanted.saturating_sub(have);
        let goal = parts.last().map(|(_, first, count)| first.saturating_add(*count));
        for (first, count) in self.take_blocks(missing, goal, missing)? {
            parts.push((have, first, count));
            have = have.saturating_add(count);
        }
        Ok(parts)
    }

    /// Looks at the names that a folder has now, those that change included.
    pub(super) fn entries_of(&self, folder: &Inode) -> Result<Vec<Named>, EditError> {
        if let Some(loaded) = self.folders.get(&folder.number().get()) {
            let entries = loaded.entries.iter();
            return Ok(entries.map(|(name, entry)| (name.clone(), entry.inode)).collect());
        }
        let entries = self.filesystem.read_dir(folder)?;
        Ok(entries
            .into_iter()
            .map(|entry| (entry.name, entry.inode.get()))
            .collect())
    }

    /// The folder that a folder is in.
    pub(super) fn parent_of(&self, folder: &Inode) -> Result<u32, EditError> {
        match self.folders.get(&folder.number().get()) {
            Some(loaded) => Ok(loaded.parent),
            None => Ok(self.filesystem.parent_of(folder)?.get()),
        }
    }

    /// What stands at a number that came from a folder.
    pub(super) fn inode_of(&self, entry: Entry) -> Result<Inode, EditError> {
        self.inode(entry.inode)
    }
}
