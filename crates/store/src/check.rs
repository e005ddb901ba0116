//! Checking a store: everything that names reach is read again and verified, and what is damaged is made again where that can be.
//!
//! A *finding* is a blob that is not what it should be, or a table that is not. Nothing ends a check but a request to stop: what cannot
//! be read is found, and the rest is read. Repair writes blobs whose bytes have the digest that they should have, and removes none. Of
//! what has no digest it makes the list of needless blobs anew, and takes entries away that nothing can name or reach: see `flaws`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use firebrick_digest::Digest;

use crate::backend::Backend;
use crate::error::StoreError;
use crate::folder::PARTIAL;
use crate::gc::{Amount, missing};
use crate::id::Id;
use crate::image::Image;
use crate::index::{Published, look};
use crate::known::chunks;
use crate::layout::BLOBS;
use crate::local::LocalImage;
use crate::manifest::{Config, MANIFEST_MAX, Manifest};
use crate::name::Name;
use crate::objects::{ObjectError, Objects};
use crate::reach::{Kind, Link, Reached, manifest, roots, walk};
use crate::seal::Seal;
use crate::store::Store;
use crate::table::{Entry, Locator, Root};

mod blob;
mod flaws;
mod plain;
mod repair;

use blob::{Piece, Pieces};
pub use flaws::Flaw;

/// How a store is checked.
#[derive(Debug)]
pub struct CheckOptions<'a> {
    /// Makes again what can be made again.
    pub repair: bool,
    /// The key for sealed images. Of those of other keys nothing but the digests of their blobs is verified.
    pub keys: &'a Seal,
    /// Image files of this host whose chunks repair may use; opened with the key of the images that they are to mend.
    pub local: &'a [LocalImage],
    /// Threads that read and verify.
    pub threads: usize,
}

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It has another length, in bytes.
    Length {
        /// What whoever names it says.
        expected: u64,
        /// What the store says.
        found: u64,
    },
    /// Its bytes have another digest.
    Damaged {
        /// Theirs.
        found: Digest,
    },
    /// The store does not give it, in the store's words.
    Unreadable(String),
    /// It is what its digest says, and not what it should be: a document or table that breaks its format.
    Wrong(String),
    /// It is what its digest says, and chunks that a table promises are not in it.
    Chunks,
}

/// Something that is not right.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Which blob or manifest.
    pub blob: Digest,
    /// What is wrong with it.
    pub fault: Fault,
    /// Chunks in it that are not right, as far as tables tell of them.
    pub chunks: u64,
    /// Bytes that they have in images: what is lost if nobody has them elsewhere.
    pub lost: u64,
    /// Versions that need it. Empty if only images that are not ours do.
    pub images: Vec<Published>,
    /// Whether it was made again.
    pub repaired: bool,
}

/// What a check came to.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Versions that were looked at, each once, however many names it has.
    pub images: u64,
    /// Those that are sealed for another key: their chunks were not opened.
    pub sealed: Vec<Published>,
    /// Those of something else: the digests of their blobs were verified.
    pub foreign: u64,
    /// Blobs and manifests that were read.
    pub read: Amount,
    /// Chunks that were opened.
    pub chunks: u64,
    /// What is not right, by digest.
    pub findings: Vec<Finding>,
    /// What is not right with documents that have no digest.
    pub flaws: Vec<Flaw>,
    /// Versions that are not whole, after any repair.
    pub broken: Vec<Published>,
    /// Blobs that nothing reaches: garbage, or of uploads that go on.
    pub unreached: Amount,
    /// Files of writes that were ended or go on.
    pub leftovers: Amount,
    /// Whole files that were looked at.
    pub whole: Amount,
    /// Those of them without a digest beside them: nobody knows whether they are right.
    pub unverified: Vec<String>,
    /// Those that are not what the digest beside them says, or cannot be read; and why. Nothing makes them again.
    pub spoiled: Vec<(String, String)>,
}

impl Store {
    /// Reads and verifies everything that names reach.
    ///
    /// # Errors
    /// [`StoreError`] if the names themselves cannot be read, or somebody asked for an end.
    pub fn check(&self, options: &CheckOptions<'_>) -> Result<Checked, StoreError> {
        let mut versions = self.backend().versions()?;
        let mut seen = HashSet::new();
        versions.retain(|version| seen.insert((version.tagged.clone(), version.digest)));
        let check = Check {
            store: self,
            options,
            versions,
            found: Mutex::default(),
            done: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
        };
        check.run()
    }
}

struct Check<'a> {
    store: &'a Store,
    options: &'a CheckOptions<'a>,
    versions: Vec<Published>,
    found: Mutex<BTreeMap<Digest, Finding>>,
    /// Bytes that were read.
    done: AtomicU64,
    chunks: AtomicU64,
}

/// A leaf that is read whole.
struct Target {
    digest: Digest,
    size: u64,
    name: Name,
}

impl<'a> Check<'a> {
    fn run(&self) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        let backend = self.store.backend();
        let listed = backend.objects().map(|objects| objects.list(BLOBS)).transpose()?;
        let (reached, owners) = self.documents()?;
        let tables = self.tables(&mut checked)?;
        let mut there: HashMap<Digest, u64> = HashMap::new();
        for entry in listed.iter().flatten() {
            let hex = entry.key.strip_prefix(BLOBS).unwrap_or_default();
            match format!("sha256:{hex}").parse() {
                Ok(digest) if reached.links.contains_key(&digest) => drop(there.insert(digest, entry.len)),
                _ => checked.unreached.add(entry.len),
            }
        }
        let targets = self.targets(&reached, &owners, &there)?;
        let whole = self.store.plain_images()?;
        // Documents of others may say anything.
        let of = targets
            .iter()
            .map(|target| target.size)
            .chain(whole.iter().map(|file| file.size))
            .fold(0, u64::saturating_add);
        let read = crate::parallel::map(self.options.threads, &targets, |target| {
            self.read_blob(target, &tables, of)
        })?;
        for (digest, link) in &reached.links {
            if link.kind == Kind::Document && !self.has(digest) {
                checked.read.add(link.size.unwrap_or(0));
            }
        }
        targets
            .iter()
            .zip(read)
            .filter(|(_, read)| *read)
            .for_each(|(target, _)| checked.read.add(target.size));
        self.whole_files(&whole, of, &mut checked)?;
        if self.options.repair {
            self.repair(&tables, &targets)?;
        }
        if let Some(objects) = backend.objects() {
            let left = objects.list(&format!("{PARTIAL}/"))?;
            left.iter().for_each(|left| checked.leftovers.add(left.len));
            self.list(objects, &mut checked)?;
        }
        checked.chunks = self.chunks.load(Ordering::Relaxed);
        self.blame(&mut checked)?;
        self.torn_names(&mut checked);
        if let Some(objects) = backend.objects() {
            self.lost_entries(objects, &mut checked)?;
        }
        Ok(checked)
    }

    fn note(&self, blob: Digest, fault: Fault) {
        self.note_chunks(blob, fault, &[]);
    }

    fn note_chunks(&self, blob: Digest, fault: Fault, bad: &[Piece]) {
        let finding = Finding {
            blob,
            fault,
            chunks: bad.len() as u64,
            lost: bad.iter().map(|piece| u64::from(piece.at.len)).sum(),
            images: Vec::new(),
            repaired: false,
        };
        self.found().entry(blob).or_insert(finding);
    }

    fn found(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Finding>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, blob: &Digest) -> bool {
        self.found().contains_key(blob)
    }

    fn check_stop(&self) -> Result<(), StoreError> {
        match self.store.stop.load(Ordering::Relaxed) {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }

    /// Reads the documents that names reach, and tells an image's name for each blob.
    fn documents(&self) -> Result<(Reached, HashMap<Digest, Name>), StoreError> {
        let backend = self.store.backend();
        let mut by_name: BTreeMap<&Name, Vec<Link>> = BTreeMap::new();
        for version in &self.versions {
            let links = by_name.entry(&version.tagged.name).or_default();
            links.push(manifest(version.digest, version.manifest_size));
            if backend.objects().is_none() {
                match backend.referrers(&version.tagged.name, &version.digest) {
                    Ok(said) => links.extend(said.iter().map(|one| manifest(one.digest, one.size))),
                    Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                    Err(error) => self.note(version.digest, Fault::Unreadable(words(&error))),
                }
            }
        }
        let (mut all, mut owners) = (Reached::default(), HashMap::new());
        let mut add = |name: &Name, links| -> Result<(), StoreError> {
            let reached = walk(links, self.options.threads, &|digest| self.document(name, digest))?;
            for (link, error) in reached.troubles {
                if let StoreError::Corrupt { problem, .. } = error {
                    self.note(link.digest, Fault::Wrong(problem));
                }
            }
            for (digest, link) in reached.links {
                owners.entry(digest).or_insert_with(|| name.clone());
                let known = all.links.entry(digest).or_insert(link);
                known.required |= link.required;
            }
            Ok(())
        };
        match (backend.objects(), self.versions.first()) {
            // There all names share all blobs, and there may be more than ours.
            (Some(objects), first) => {
                let any: Name = "any".parse().expect("it is a name");
                add(
                    first.map_or(&any, |version| &version.tagged.name),
                    self.roots(objects)?,
                )?;
            }
            (None, _) => by_name
                .into_iter()
                .try_for_each(|(name, links)| add(name, links))?,
        }
        Ok((all, owners))
    }

    fn roots(&self, objects: &dyn Objects) -> Result<Vec<Link>, StoreError> {
        Ok(roots(&look(objects)?.0))
    }

    /// A document as the store has it; if that is not right, as this host has it, and then it is made again.
    fn document(&self, name: &Name, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.check_stop()?;
        let backend = self.store.backend();
        let fault = match backend.read_manifest(name, digest, MANIFEST_MAX) {
            Ok(Some(bytes)) => match Digest::of(&bytes) {
                found if found == *digest => return Ok(bytes),
                found => Fault::Damaged { found },
            },
            Ok(None) => Fault::Missing,
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            // Of what is not known to be a document, it says that it is none.
            Err(error @ StoreError::Object(ObjectError::TooLarge { .. })) if !self.is_version(digest) => {
                return Err(error);
            }
            Err(error) => Fault::Unreadable(words(&error)),
        };
        if fault == Fault::Missing && !self.is_version(digest) {
            // It may be one that nobody has copied; if it must be there, it is a target and found missing.
            return Err(missing(backend.address(), &digest.hex()));
        }
        self.note(*digest, fault);
        let kept = self
            .store
            .source()
            .cache
            .and_then(|cache| cache.get(&digest.hex(), MANIFEST_MAX));
        let kept = kept.filter(|bytes| Digest::of(bytes) == *digest);
        let Some(bytes) = kept else {
            let address = backend.address().to_owned();
            return Err(StoreError::NoImage {
                address,
                name: digest.to_string(),
                known: Vec::new(),
            });
        };
        if self.options.repair {
            backend.write_manifest(name, digest, bytes.clone())?;
            self.repaired(digest);
        }
        Ok(bytes)
    }

    fn is_version(&self, digest: &Digest) -> bool {
        self.versions.iter().any(|version| version.digest == *digest)
    }

    fn repaired(&self, blob: &Digest) {
        if let Some(finding) = self.found().get_mut(blob) {
            finding.repaired = true;
        }
    }

    /// What the images' tables promise of each blob.
    fn tables(&self, checked: &mut Checked) -> Result<Pieces, StoreError> {
        let source = self.store.source();
        let mut images: Vec<(Image, Config, Root)> = Vec::new();
        let mut seen = HashSet::new();
        for version in self.versions.iter().filter(|version| seen.insert(version.digest)) {
            self.check_stop()?;
            checked.images += 1;
            let image = match source.image(&version.tagged.name, &version.digest) {
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(StoreError::Foreign { .. }) => {
                    checked.foreign += 1;
                    continue;
                }
                Err(StoreError::Corrupt { what, problem, .. }) => {
                    self.note(version.digest, Fault::Wrong(format!("{what}: {problem}")));
                    continue;
                }
                // What does not come at all is found where blobs are read.
                Err(_) => continue,
                Ok(image) => image,
            };
            let Ok(seal) = image.seal(self.options.keys) else {
                checked.sealed.push(version.clone());
                continue;
            };
            let config = match source.config(&image, seal) {
                Ok(config) => config,
                Err(error) => {
                    self.note(version.digest, Fault::Wrong(error.to_string()));
                    continue;
                }
            };
            match source.root(&image, seal) {
                Ok(root) => images.push((image, config, root)),
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => self.note_table(&image, &error),
            }
        }
        let mut pieces = Pieces::default();
        for (image, config, root) in &images {
            pieces.add_root(image, config, root);
        }
        let mut read = HashSet::new();
        for (image, _, root) in &images {
            self.check_stop()?;
            let entries = self.entries(image, root, &mut read, &pieces)?;
            pieces.add(image, chunks(&entries));
        }
        pieces.settle();
        Ok(pieces)
    }

    /// A table that does not open. That its blob is damaged is found where blobs are read, and says more.
    fn note_table(&self, image: &Image, error: &StoreError) {
        let Some(root) = image.manifest.layers.first() else {
            return;
        };
        let is_whole = || {
            let bytes = self
                .store
                .backend()
                .read_blob(&image.name, &root.digest, 0..root.size);
            bytes.is_ok_and(|bytes| Digest::of(&bytes) == root.digest)
        };
        let problem = match error {
            StoreError::Corrupt { problem, .. } => problem.clone(),
            StoreError::Chunk { blob, source, .. } if *blob == root.digest && is_whole() => {
                format!("it is not the table that the config names: {source}")
            }
            _ => return,
        };
        self.note(root.digest, Fault::Wrong(problem));
    }

    /// The entries of an image, but for segments that were looked at for another, and for those that cannot be read.
    fn entries(
        &self,
        image: &Image,
        root: &Root,
        seen: &mut HashSet<Id>,
        pieces: &Pieces,
    ) -> Result<Vec<Entry>, StoreError> {
        let source = self.store.source();
        let seal = image.seal(self.options.keys)?;
        let mut entries = Vec::new();
        match source.segments(image, &root.segments, seal, &|_| {}) {
            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
            Ok(all) => {
                let new = root
                    .segments
                    .iter()
                    .zip(all)
                    .filter(|(segment, _)| seen.insert(segment.at.id));
                entries.extend(new.flat_map(|(_, entries)| entries));
            }
            // One by one, and from wherever else the same segment lies.
            Err(_) => {
                for segment in &root.segments {
                    let others = pieces
                        .copies(&segment.at.id)
                        .map(|at| crate::Segment { at, ..*segment });
                    let mut last = None;
                    for segment in std::iter::once(*segment).chain(others) {
                        match source.segments(image, &[segment], seal, &|_| {}) {
                            Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                            Err(error) => last = last.or(Some(error)),
                            Ok(found) => {
                                last = None;
                                entries.extend(found.concat());
                                break;
                            }
                        }
                    }
                    if let Some(error) = last {
                        self.note_table(image, &error);
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What is read whole: what images need, and what is mentioned otherwise and is there.
    fn targets(
        &self,
        reached: &Reached,
        owners: &HashMap<Digest, Name>,
        there: &HashMap<Digest, u64>,
    ) -> Result<Vec<Target>, StoreError> {
        let mut wanted = Vec::new();
        for (digest, link) in reached.links.iter().filter(|(digest, _)| !self.has(digest)) {
            match owners.get(digest) {
                Some(_) if link.kind == Kind::Document && link.required => {
                    self.look_for(link, owners, there)?;
                }
                Some(name) if link.kind != Kind::Document => wanted.push((link, name)),
                _ => {}
            }
        }
        wanted.sort_by_key(|(link, _)| link.digest);
        let targets = crate::parallel::map(self.options.threads, &wanted, |(link, name)| {
            self.target(link, name, there)
        })?;
        Ok(targets.into_iter().flatten().collect())
    }

    /// One of them, with its length; what is noted about it here is not read.
    fn target(
        &self,
        link: &Link,
        name: &Name,
        there: &HashMap<Digest, u64>,
    ) -> Result<Option<Target>, StoreError> {
        let found = match there.get(&link.digest) {
            Some(found) => Ok(Some(*found)),
            None if !link.required => return Ok(None),
            None => self.store.backend().blob_size(name, &link.digest),
        };
        let fault = match (found, link.size) {
            (Err(StoreError::Stopped), _) => return Err(StoreError::Stopped),
            (Err(error), _) => Some(Fault::Unreadable(words(&error))),
            (Ok(None), _) => Some(Fault::Missing),
            (Ok(Some(found)), Some(expected)) if found != expected => Some(Fault::Length { expected, found }),
            (Ok(Some(_)), _) => None,
        };
        if let Some(fault) = fault {
            self.note(link.digest, fault);
        }
        let size = link.size.or(there.get(&link.digest).copied());
        Ok(size.map(|size| Target {
            digest: link.digest,
            size,
            name: name.clone(),
        }))
    }

    /// A document that must be there and was not given is missing. One that was is as long as whoever names it says: other
    /// programs refuse it where that is not so.
    fn look_for(
        &self,
        link: &Link,
        owners: &HashMap<Digest, Name>,
        there: &HashMap<Digest, u64>,
    ) -> Result<(), StoreError> {
        let Some(name) = owners.get(&link.digest) else {
            return Ok(());
        };
        let found = match there.get(&link.digest) {
            Some(found) => Some(*found),
            None => self
                .store
                .backend()
                .read_manifest(name, &link.digest, MANIFEST_MAX)?
                .map(|bytes| bytes.len() as u64),
        };
        match (found, link.size) {
            (None, _) => self.note(link.digest, Fault::Missing),
            (Some(found), Some(expected)) if found != expected => {
                self.note(link.digest, Fault::Length { expected, found });
            }
            (Some(_), _) => {}
        }
        Ok(())
    }

    /// Finds out which versions need what is not right, and which of them are not whole.
    fn blame(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let mut findings = std::mem::take(&mut *self.found());
        let source = self.store.source();
        let versions = if findings.is_empty() {
            &[]
        } else {
            &self.versions[..]
        };
        for version in versions {
            let mut needs = vec![version.digest];
            if let Ok(bytes) = source.manifest(&version.tagged.name, &version.digest)
                && let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes)
            {
                needs.extend(manifest.blobs().map(|blob| blob.digest));
            }
            // That an image does not open says nothing beside the blob that it is for.
            let is_wrong = |finding: &Finding| matches!(finding.fault, Fault::Wrong(_));
            let others = needs.iter().skip(1).filter_map(|digest| findings.get(digest));
            if findings.get(&version.digest).is_some_and(is_wrong) && !others.into_iter().all(is_wrong) {
                findings.remove(&version.digest);
            }
            let mut broken = false;
            for digest in needs.iter().collect::<HashSet<_>>() {
                if let Some(finding) = findings.get_mut(digest) {
                    finding.images.push(version.clone());
                    broken |= !finding.repaired;
                }
            }
            if broken {
                checked.broken.push(version.clone());
            }
        }
        checked.findings = findings.into_values().collect();
        Ok(())
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where repair and reading get bytes.
fn read(backend: &dyn Backend, name: &Name, at: &Locator) -> Result<Vec<u8>, StoreError> {
    let start = u64::from(at.offset);
    backend.read_blob(name, &at.blob, start..start + u64::from(at.stored))
}

#[cfg(test)]
mod tests;
