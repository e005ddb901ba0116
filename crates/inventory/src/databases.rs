//! Databases of packages. A [`Collector`] holds what they told so far; each file here reads the databases of one world.

mod apk;
mod cargo;
mod dpkg;
mod elf;
mod npm;
mod pip;
mod rpm;
mod sqlite;
mod stanza;

use std::collections::HashMap;

use firebrick_reader::FileType;

use crate::contents::start_of;
use crate::{Contents, Ecosystem, InventoryError, Listing, NodeId, Package, PackageId, printable};

/// Longest database that is read, in bytes. Debian's with 5,000 packages has 8 MiB.
const DATABASE_MAX: u64 = 64 << 20;

/// Longest that all databases together may be, in bytes: many names may lead to one of them.
const DATABASES_MAX: u64 = 4 << 30;

/// More packages than this are not told of.
const PACKAGES_MAX: usize = 200_000;

/// Reads all databases, those that own files before others first.
pub(crate) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    dpkg::collect(collector)?;
    apk::collect(collector)?;
    rpm::collect(collector)?;
    pip::collect(collector)?;
    npm::collect(collector)?;
    cargo::collect(collector)
}

/// What the databases told so far.
pub(crate) struct Collector<'a> {
    pub(crate) listing: &'a Listing,
    pub(crate) contents: &'a dyn Contents,
    pub(crate) packages: Vec<Package>,
    pub(crate) owners: Vec<Option<PackageId>>,
    pub(crate) remarks: Vec<String>,
    known: HashMap<(Ecosystem, String, String, Option<String>), PackageId>,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(listing: &'a Listing, contents: &'a dyn Contents) -> Collector<'a> {
        Collector {
            listing,
            contents,
            packages: Vec::new(),
            owners: vec![None; listing.len()],
            remarks: Vec::new(),
            known: HashMap::new(),
            left: DATABASES_MAX,
        }
    }

    /// Adds a package, or finds it where another file named it already. `None` without a name, and where there are too many.
    fn add(&mut self, package: Package) -> Option<PackageId> {
        if package.name.is_empty() {
            return None;
        }
        let key = (
            package.ecosystem,
            package.name.clone(),
            package.version.clone(),
            package.architecture.clone(),
        );
        if let Some(id) = self.known.get(&key) {
            return Some(*id);
        }
        if self.packages.len() >= PACKAGES_MAX {
            self.remark(format!("only the first {PACKAGES_MAX} packages are told of"));
            return None;
        }
        let id = PackageId(u32::try_from(self.packages.len()).ok()?);
        self.packages.push(package);
        self.known.insert(key, id);
        Some(id)
    }

    /// Makes a package the owner of a node that is no directory and nobody's.
    fn claim(&mut self, node: NodeId, package: PackageId) {
        if self.listing.entry(node).file_type == FileType::Directory {
            return;
        }
        if let Some(owner) = self.owners.get_mut(node.index()) {
            owner.get_or_insert(package);
        }
    }

    /// The regular file at a path, symbolic links followed.
    pub(crate) fn find_file(&self, path: &[u8]) -> Option<NodeId> {
        let node = self.listing.find_target(path)?;
        (self.listing.entry(node).file_type == FileType::Regular).then_some(node)
    }

    /// The regular file under a name in a directory.
    fn file_in(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let node = self.listing.child(directory, name)?;
        (self.listing.entry(node).file_type == FileType::Regular).then_some(node)
    }

    /// The directory at a path, symbolic links followed.
    fn find_directory(&self, path: &[u8]) -> Option<NodeId> {
        let node = self.listing.find_target(path)?;
        (self.listing.entry(node).file_type == FileType::Directory).then_some(node)
    }

    /// All of a file; `None` where it is too long to be a database.
    pub(crate) fn read(&mut self, node: NodeId) -> Result<Option<Vec<u8>>, InventoryError> {
        let entry = self.listing.entry(node);
        if entry.size > DATABASE_MAX {
            let path = printable(&self.listing.path(node));
            self.remark(format!("/{path} is not read: it is too long to be a database"));
            return Ok(None);
        }
        let Some(left) = self.left.checked_sub(entry.size) else {
            self.remark("the databases are together too long: some are not read".to_owned());
            return Ok(None);
        };
        self.left = left;
        self.read_part(node, 0, usize::try_from(entry.size).unwrap_or(usize::MAX))
            .map(Some)
    }

    /// At most `limit` bytes of a file, from an offset on.
    fn read_part(&self, node: NodeId, offset: u64, limit: usize) -> Result<Vec<u8>, InventoryError> {
        start_of(self.contents, self.listing.entry(node).inode, offset, limit).map_err(|source| {
            InventoryError::Read {
                path: printable(&self.listing.path(node)),
                source,
            }
        })
    }

    fn remark(&mut self, text: String) {
        if self.remarks.len() < 100 && !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }
}
