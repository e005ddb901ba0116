//! Taking an image from an OCI archive into a store: see `archive.rs`, and [`Import`] for what is not believed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firebrick_digest::Digest;

use crate::backend::Replaced;
use crate::error::StoreError;
use crate::index::{Index, Published, is_referrer};
use crate::layout::{BLOBS, LAYOUT_KEY};
use crate::ledger::Settled;
use crate::manifest::{CONFIG_MAX, Descriptor, MANIFEST_MAX, Manifest};
use crate::name::Tagged;
use crate::seal::Seal;
use crate::store::{Progress, Store};
use crate::table::BUNDLE_MAX;
use crate::tar::{Member, Members, TarError};

/// An archive's `oci-layout` and index have at most so many bytes.
const LAYOUT_MAX: u64 = 4 << 10;
const INDEX_MAX: u64 = 1 << 20;
/// Manifests that say something about the image, and blobs of each, at most.
const SAID_MAX: usize = 64;
/// Blobs that wait in the scratch folder, at most: more than a manifest can list.
const SPOOL_MAX: usize = 50_000;

/// What is taken from an archive, and how.
///
/// Nothing in an archive is believed. Names of files choose nothing but which digest is to be verified; blobs are taken only if the image
/// lists them, and only with that length and digest; lengths are bounded before anything is read. A table that anybody can read is read
/// before the image gets its name. Files may come in any order: those that come before it is known whether they are
/// needed wait in the scratch folder, which holds no more than the archive's own bytes.
#[derive(Debug)]
pub struct Import<'a> {
    /// The name that it gets; `None` for the one in the archive.
    pub tagged: Option<&'a Tagged>,
    /// A folder for blobs that come too early.
    pub scratch: &'a Path,
    /// The time, in seconds since 1970.
    pub time: u64,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The version that the name means now.
    pub published: Published,
    /// What became of the name; `None` if it meant this version already.
    pub replaced: Option<Replaced>,
    /// Bytes that were sent to the store.
    pub sent: u64,
    /// Manifests about the image that came with it: signatures.
    pub said: u64,
}

impl Store {
    /// Takes the image of an OCI archive, and what is said about it.
    ///
    /// # Errors
    /// [`StoreError::BadArchive`] if the archive is not right, [`StoreError::Foreign`] if its image is none of ours. No name means
    /// anything else then.
    pub fn import(&self, import: &Import<'_>, reader: &mut dyn Read) -> Result<Imported, StoreError> {
        let claim = self.claim()?;
        let mut taking = Taking {
            store: self,
            import,
            index: None,
            image: None,
            waiting: HashMap::new(),
            read: HashMap::new(),
            needed: HashMap::new(),
            done: HashSet::new(),
            spool: Spool::new(import.scratch)?,
            sent: 0,
        };
        taking.take_all(reader)?;
        taking.publish(claim)
    }
}

/// The image that an archive is of.
struct Chosen {
    tagged: Tagged,
    digest: Digest,
    /// What is said about it.
    said: Vec<Descriptor>,
}

/// An archive that is being read.
struct Taking<'a> {
    store: &'a Store,
    import: &'a Import<'a>,
    index: Option<Index>,
    image: Option<Chosen>,
    /// Manifests that are still to come; whether one is the image's.
    waiting: HashMap<Digest, bool>,
    /// Manifests that came.
    read: HashMap<Digest, Vec<u8>>,
    /// Blobs that manifests list, with their lengths.
    needed: HashMap<Digest, u64>,
    done: HashSet<Digest>,
    spool: Spool,
    sent: u64,
}

impl Taking<'_> {
    fn take_all(&mut self, reader: &mut dyn Read) -> Result<(), StoreError> {
        let mut members = Members::new(reader);
        while let Some(member) = members.next().map_err(torn)? {
            self.store.check_stop()?;
            let name = member.name.strip_prefix("./").unwrap_or(&member.name);
            if name == LAYOUT_KEY {
                check_layout(&bounded(&member, &mut members, LAYOUT_MAX)?)?;
            } else if name == "index.json" {
                self.take_index(&bounded(&member, &mut members, INDEX_MAX)?)?;
            } else if let Some(digest) = name
                .strip_prefix(BLOBS)
                .and_then(|hex| format!("sha256:{hex}").parse().ok())
            {
                self.take_blob(digest, &member, &mut members)?;
            }
        }
        if self.index.is_none() {
            return Err(corrupt("index.json", "there is none"));
        }
        // What came too early.
        while let Some(digest) = self.waiting.keys().copied().find(|digest| self.spool.has(digest)) {
            let bytes = self.spool.take(&digest)?;
            self.take_manifest(digest, bytes)?;
        }
        if let Some(digest) = self.waiting.keys().next() {
            return Err(corrupt(format!("manifest {digest}"), "it is not there"));
        }
        let left: Vec<(Digest, u64)> = self.needed.iter().map(|(digest, len)| (*digest, *len)).collect();
        for (digest, len) in left
            .into_iter()
            .filter(|(digest, _)| !self.done.contains(digest))
            .collect::<Vec<_>>()
        {
            if !self.spool.has(&digest) {
                return Err(corrupt(format!("blob {digest}"), "it is not there"));
            }
            let bytes = self.spool.take(&digest)?;
            self.keep(digest, len, bytes)?;
        }
        Ok(())
    }

    fn take_index(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.index.is_some() {
            return Err(corrupt("index.json", "there are two"));
        }
        let index = Index::decode(bytes).map_err(|problem| corrupt("index.json", problem))?;
        let images: Vec<&Descriptor> = index.manifests.iter().filter(|one| !is_referrer(one)).collect();
        let [image] = images[..] else {
            return Err(corrupt(
                "index.json",
                format!("it names {} images, not one", images.len()),
            ));
        };
        let named = index
            .versions()
            .into_iter()
            .find(|version| version.digest == image.digest);
        let tagged = match (self.import.tagged, named) {
            (Some(tagged), _) => tagged.clone(),
            (None, Some(version)) => version.tagged,
            (None, None) => {
                return Err(corrupt(
                    "index.json",
                    "it gives the image no name; one must be given",
                ));
            }
        };
        let said = index.referrers(&image.digest);
        if said.len() > SAID_MAX {
            return Err(corrupt(
                "index.json",
                format!("it has {} manifests about the image", said.len()),
            ));
        }
        self.waiting.extend(said.iter().map(|one| (one.digest, false)));
        self.waiting.insert(image.digest, true);
        self.image = Some(Chosen {
            tagged,
            digest: image.digest,
            said,
        });
        self.index = Some(index);
        Ok(())
    }

    fn take_blob(
        &mut self,
        digest: Digest,
        member: &Member,
        members: &mut Members<'_>,
    ) -> Result<(), StoreError> {
        let settled = self.index.is_some() && self.waiting.is_empty();
        let is_known = self.needed.contains_key(&digest) || self.waiting.contains_key(&digest);
        // No blob of ours is so long, so nobody will ask for this one.
        let is_long = member.len > BUNDLE_MAX;
        if is_long || self.done.contains(&digest) || self.spool.has(&digest) || (settled && !is_known) {
            return Ok(());
        }
        let bytes = members.read().map_err(torn)?;
        match Digest::of(&bytes) {
            found if found == digest => {}
            found => {
                return Err(corrupt(
                    format!("blob {digest}"),
                    format!("its bytes have the digest {found}"),
                ));
            }
        }
        match self.needed.get(&digest) {
            _ if self.waiting.contains_key(&digest) => self.take_manifest(digest, bytes),
            Some(len) => self.keep(digest, *len, bytes),
            None => self.spool.add(digest, &bytes),
        }
    }

    /// Reads one of the manifests that the index names, whose digest is right.
    fn take_manifest(&mut self, digest: Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        let what = || format!("manifest {digest}");
        if bytes.len() as u64 > MANIFEST_MAX {
            return Err(corrupt(what(), format!("it has {} bytes", bytes.len())));
        }
        let manifest = match self.waiting.remove(&digest) {
            Some(true) => Manifest::decode_image(&bytes).map_err(|problem| StoreError::Foreign {
                address: ARCHIVE.to_owned(),
                what: what(),
                problem,
            })?,
            _ => {
                let manifest: Manifest =
                    serde_json::from_slice(&bytes).map_err(|error| corrupt(what(), error.to_string()))?;
                if manifest.blobs().count() > SAID_MAX || manifest.blobs().any(|blob| blob.size > CONFIG_MAX)
                {
                    return Err(corrupt(what(), "it lists more than anything about an image has"));
                }
                manifest
            }
        };
        for blob in manifest.blobs() {
            let len = *self.needed.entry(blob.digest).or_insert(blob.size);
            if len != blob.size {
                return Err(corrupt(
                    what(),
                    format!("it says twice how long {} is", blob.digest),
                ));
            }
        }
        self.read.insert(digest, bytes);
        Ok(())
    }

    /// Sends a needed blob, whose digest is right, unless it is there.
    fn keep(&mut self, digest: Digest, len: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        if bytes.len() as u64 != len {
            let problem = format!("it has {} bytes, and the manifest says {len}", bytes.len());
            return Err(corrupt(format!("blob {digest}"), problem));
        }
        let Some(image) = &self.image else {
            return Ok(());
        };
        let (backend, name) = (self.store.backend(), &image.tagged.name);
        if backend.blob_size(name, &digest)? != Some(len) {
            backend.write_blob(name, &digest, bytes)?;
            self.sent += len;
        }
        self.done.insert(digest);
        let lens = |done: &HashMap<Digest, u64>| done.values().sum();
        (self.store.progress)(Progress::Upload {
            done: self
                .done
                .iter()
                .filter_map(|digest| self.needed.get(digest))
                .sum(),
            of: lens(&self.needed),
            sent: self.sent,
        });
        Ok(())
    }

    /// Gives the image its name, after everything is there and right.
    fn publish(mut self, claim: crate::Claim<'_>) -> Result<Imported, StoreError> {
        let image = self
            .image
            .take()
            .ok_or_else(|| corrupt("index.json", "there is none"))?;
        let (backend, name) = (self.store.backend(), &image.tagged.name);
        for (digest, bytes) in &self.read {
            self.sent += bytes.len() as u64;
            backend.write_manifest(name, digest, bytes.clone())?;
        }
        let size = self.check_table(&image).map_err(blamed)?;
        let mut blobs: Vec<Digest> = self.needed.keys().chain(self.read.keys()).copied().collect();
        blobs.sort();
        let published = Published {
            tagged: image.tagged.clone(),
            digest: image.digest,
            manifest_size: self.read.get(&image.digest).map_or(0, |bytes| bytes.len() as u64),
            image_size: size,
            time: self.import.time,
            current: true,
        };
        let history = backend.history(&image.tagged)?;
        let is_there = history
            .iter()
            .any(|version| version.current && version.digest == image.digest);
        let said = image.said.len() as u64;
        let mut replaced = None;
        let write = |epoch| {
            if !is_there && replaced.is_none() {
                replaced = backend.publish(&published, epoch)?;
                if replaced.is_none() {
                    return Ok(None);
                }
            }
            for one in &image.said {
                if !backend.refer(name, &image.digest, one, epoch)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        if let Settled::Gone(gone) = claim.name(name, &blobs, write)? {
            return Err(StoreError::Corrupt {
                address: backend.address().to_owned(),
                what: format!("image {}@{}", image.tagged, image.digest),
                problem: format!(
                    "{} of its blobs were removed while it was imported; imported again it has them",
                    gone.len()
                ),
            });
        }
        Ok(Imported {
            published,
            replaced,
            sent: self.sent,
            said,
        })
    }

    /// Reads the image's table, if it is not sealed, and tells the image's length.
    fn check_table(&self, image: &Chosen) -> Result<u64, StoreError> {
        let source = self.store.source();
        let opened = source.image(&image.tagged.name, &image.digest)?;
        if opened.config.key.is_none() {
            let root = source.root(&opened, &Seal::PLAIN)?;
            source.segments(&opened, &root.segments, &Seal::PLAIN, &|_| {})?;
        }
        Ok(opened.config.size)
    }
}

const ARCHIVE: &str = "the archive";

fn corrupt(what: impl Into<String>, problem: impl Into<String>) -> StoreError {
    StoreError::BadArchive {
        what: what.into(),
        problem: problem.into(),
    }
}

/// What is wrong with a table that has just come out of the archive is wrong with that, not with the store.
fn blamed(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what, problem, .. } => corrupt(what, problem),
        StoreError::Chunk { blob, id, source, .. } => corrupt(
            format!("blob {blob}"),
            format!("chunk {id} in it is damaged: {source}"),
        ),
        other => other,
    }
}

fn torn(error: TarError) -> StoreError {
    match error {
        TarError::Read(source) => StoreError::Archive {
            action: "read",
            source,
        },
        TarError::Format(problem) => corrupt("the tar", problem),
    }
}

fn bounded(member: &Member, members: &mut Members<'_>, limit: u64) -> Result<Vec<u8>, StoreError> {
    match member.len > limit {
        true => Err(corrupt(&member.name, format!("it has {} bytes", member.len))),
        false => members.read().map_err(torn),
    }
}

fn check_layout(bytes: &[u8]) -> Result<(), StoreError> {
    let layout: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| corrupt(LAYOUT_KEY, error.to_string()))?;
    match layout
        .get("imageLayoutVersion")
        .and_then(|version| version.as_str())
    {
        Some(version) if version.starts_with("1.") => Ok(()),
        other => Err(corrupt(LAYOUT_KEY, format!("its version is {other:?}"))),
    }
}

/// Blobs that came before it was known who needs them, in a file without a name.
struct Spool {
    file: File,
    path: std::path::PathBuf,
    end: u64,
    blobs: HashMap<Digest, (u64, usize)>,
}

impl Spool {
    fn new(folder: &Path) -> Result<Spool, StoreError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| StoreError::File {
            action: "write in",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Spool {
            file,
            path: folder.to_owned(),
            end: 0,
            blobs: HashMap::new(),
        })
    }

    fn failed(&self, action: &'static str) -> impl Fn(std::io::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::File {
            action,
            path: path.clone(),
            source,
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    fn add(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.blobs.len() >= SPOOL_MAX {
            return Err(corrupt("the tar", "it has more blobs than an image"));
        }
        self.file
            .write_all_at(bytes, self.end)
            .map_err(self.failed("write in"))?;
        self.blobs.insert(digest, (self.end, bytes.len()));
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn take(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (at, len) = self.blobs.get(digest).copied().unwrap_or_default();
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(self.failed("read in"))?;
        Ok(bytes)
    }
}
