//! Publishing an image: what the store has is looked up, what it lacks is sent, and the name is changed last.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_digest::{Digest, Hasher};

use crate::backend::Replaced;
use crate::error::StoreError;
use crate::index::Published;
use crate::known::{Known, Located, chunks};
use crate::ledger::{ANEW, Claim, Settled};
use crate::manifest::{About, BUNDLE, CONFIG, Config, Descriptor, Manifest, ROOT};
use crate::name::Tagged;
use crate::pack::{Packed, Packing, pack, pack_chunks};
use crate::seal::{Closer, Seal};
use crate::store::{Progress, Store};
use crate::table::{Entry, Root, Segment, encode_root, encode_segment, segments};
use crate::told;

/// Tables that are read to learn what a store has: those of the same name first, then those published last.
const TABLES_MAX: usize = 48;
/// Bytes of tables that are fetched for that at most, about: those of 20 GB of data. What is in the cache costs nothing.
const TABLE_BYTES_MAX: u64 = 32 << 20;
/// Tables that are read at the same time.
const TABLES_AT_ONCE: usize = 4;
/// Versions of the same name among them.
const OWN_MAX: usize = 8;

/// What is published, and how.
#[derive(Debug)]
pub struct Upload<'a> {
    /// The image's file; it must not change meanwhile.
    pub file: &'a File,
    /// Its path, for errors.
    pub path: &'a Path,
    /// The name that it gets.
    pub tagged: &'a Tagged,
    /// What it is.
    pub about: About,
    /// How its chunks are sealed.
    pub seal: &'a Seal,
    /// The time, in seconds since 1970.
    pub time: u64,
    /// Threads that compress.
    pub threads: usize,
}

/// What an upload came to.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The version that the name means now.
    pub published: Published,
    /// What became of the name; `None` if it meant these bytes already.
    pub replaced: Option<Replaced>,
    /// Length of the image in bytes.
    pub image_len: u64,
    /// Bytes of it that are no hole.
    pub data_len: u64,
    /// Bytes that were sent, tables and documents among them.
    pub sent: u64,
    /// Chunks that were sent.
    pub new_chunks: u64,
    /// Chunks that were there.
    pub known_chunks: u64,
    /// The parts of the image and their ids: what its file holds, and in which order.
    pub entries: Vec<Entry>,
}

impl Store {
    /// Publishes an image under a name. Until its last step nobody sees anything of it.
    ///
    /// # Errors
    /// [`StoreError`]. What was sent is there when the upload is tried again.
    pub fn upload(&self, upload: &Upload<'_>) -> Result<Uploaded, StoreError> {
        let len = file_len(upload)?;
        let mut known = self.known(upload)?;
        for attempt in 0..ANEW {
            let run = Run {
                store: self,
                upload,
                len,
                sent: AtomicU64::new(0),
                done: AtomicU64::new(0),
                known: &known,
                is_first: attempt == 0,
            };
            match run.publish()? {
                Outcome::Published(uploaded) => return Ok(*uploaded),
                Outcome::Gone(blobs) => blobs.into_iter().for_each(|blob| known.lose(blob)),
            }
        }
        Err(StoreError::Contended {
            address: self.backend().address().to_owned(),
            name: upload.tagged.to_string(),
            attempts: ANEW,
        })
    }

    /// What the store has, as far as it is worth to know.
    fn known(&self, upload: &Upload<'_>) -> Result<Known, StoreError> {
        let relatives = self.relatives(upload.tagged)?;
        let budget = AtomicU64::new(TABLE_BYTES_MAX);
        let found = crate::parallel::map(TABLES_AT_ONCE, &relatives, |version| {
            if budget.load(Ordering::Relaxed) == 0 {
                return Ok(Located::default());
            }
            (self.progress)(Progress::Table(version));
            let spend = |len| {
                let _ = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    Some(left.saturating_sub(len))
                });
            };
            match self.located(version, upload.seal, &spend) {
                Err(StoreError::Stopped) => Err(StoreError::Stopped),
                // Images of other programs lie there with every right.
                Err(StoreError::Foreign { .. }) => Ok(Located::default()),
                // An image that cannot be read is none to share with; `check` is who complains about it.
                Err(error) => {
                    (self.progress)(Progress::Ignored(version, &error));
                    Ok(Located::default())
                }
                located => located,
            }
        })?;
        let mut known = Known::default();
        for (version, located) in relatives.iter().zip(found) {
            known.add(&version.tagged.name, located);
        }
        Ok(known)
    }

    /// Versions that an image may share chunks with, the likeliest first.
    fn relatives(&self, tagged: &Tagged) -> Result<Vec<Published>, StoreError> {
        let mut all = match self.backend().versions() {
            Err(StoreError::Unsupported { .. }) => self.backend().history(tagged)?,
            all => all?,
        };
        // Names in the order of what they have to do with this one; of each what is current and what is new.
        all.sort_by_key(|version| {
            let other = (version.tagged.name != tagged.name, version.tagged != *tagged);
            (other, !version.current, std::cmp::Reverse(version.time))
        });
        let mut seen = HashSet::new();
        all.retain(|version| seen.insert(version.digest));
        let own = all.iter().filter(|version| version.tagged == *tagged).count();
        let spare = own.saturating_sub(OWN_MAX);
        all.drain(own - spare..own);
        all.truncate(TABLES_MAX);
        Ok(all)
    }

    /// Where the segments and chunks of a version lie; nothing if they are sealed otherwise.
    /// `came` is told of bytes that were fetched for that.
    fn located(
        &self,
        version: &Published,
        seal: &Seal,
        came: &(dyn Fn(u64) + Sync),
    ) -> Result<Located, StoreError> {
        let source = self.source();
        let image = source.image(&version.tagged.name, &version.digest)?;
        if image.config.key.as_deref() != seal.fingerprint() {
            return Ok(Located::default());
        }
        let root = source.root(&image, seal)?;
        let entries = source.segments(&image, &root.segments, seal, came)?;
        let segments = root.segments.iter().map(|segment| segment.at);
        let blobs = image.manifest.blobs();
        Ok(Located {
            locators: segments
                .chain(entries.iter().flat_map(|entries| chunks(entries)))
                .collect(),
            sizes: blobs.map(|blob| (blob.digest, blob.size)).collect(),
        })
    }
}

fn file_len(upload: &Upload<'_>) -> Result<u64, StoreError> {
    let metadata = upload.file.metadata().map_err(|source| StoreError::File {
        action: "examine",
        path: upload.path.to_owned(),
        source,
    })?;
    Ok(metadata.len())
}

enum Outcome {
    Published(Box<Uploaded>),
    /// Blobs that tables named, or that were there, are not there.
    Gone(Vec<Digest>),
}

/// One attempt.
struct Run<'a> {
    store: &'a Store,
    upload: &'a Upload<'a>,
    len: u64,
    sent: AtomicU64,
    done: AtomicU64,
    known: &'a Known,
    /// Whether nothing has gone yet: then an image that is there is whole.
    is_first: bool,
}

impl Run<'_> {
    fn publish(&self) -> Result<Outcome, StoreError> {
        let claim = self.store.claim()?;
        let packed = self.pack(|packing| pack(self.upload.file, self.upload.path, self.len, packing))?;
        self.check_unchanged()?;
        let table = self.pack_table(&packed)?;
        let root = encode_root(&Root {
            image_len: self.len,
            segments: table.segments.clone(),
        });
        let bundles: BTreeMap<Digest, u64> = packed.bundles.iter().chain(&table.bundles).copied().collect();
        let mut reused: Vec<Digest> = Vec::new();
        let mut seen = HashSet::new();
        let segments = table.segments.iter().map(|segment| segment.at.blob);
        for blob in chunks(&packed.entries)
            .map(|locator| locator.blob)
            .chain(segments)
        {
            if seen.insert(blob) && !bundles.contains_key(&blob) {
                reused.push(blob);
            }
        }
        let Mounted { there, gone } = self.mount(&reused)?;
        if !gone.is_empty() {
            return Ok(Outcome::Gone(gone));
        }
        let mut layers: Vec<Descriptor> = there
            .into_iter()
            .chain(bundles)
            .map(|(blob, size)| Descriptor::new(BUNDLE, blob, size))
            .collect();
        layers.sort_by_key(|layer| layer.digest);
        let config = Config {
            about: self.upload.about.clone(),
            size: self.len,
            data: chunks(&packed.entries)
                .map(|locator| u64::from(locator.len))
                .sum(),
            content: content(&packed.entries),
            table_len: root.len() as u64,
            table_id: self.upload.seal.id(&root),
            key: self.upload.seal.fingerprint().map(str::to_owned),
        };
        self.name(claim, &packed, config, &root, layers)
    }

    /// Writes the documents, and makes the name mean them.
    fn name(
        &self,
        claim: Claim<'_>,
        packed: &Packed,
        config: Config,
        root: &[u8],
        mut layers: Vec<Descriptor>,
    ) -> Result<Outcome, StoreError> {
        let backend = self.store.backend();
        let tagged = self.upload.tagged;
        if let Some(current) = backend
            .history(tagged)?
            .into_iter()
            .find(|version| version.current)
            && let Ok(image) = self.store.source().image(&tagged.name, &current.digest)
            && let Ok(there) = self.store.source().config(&image, self.upload.seal)
            && self.is_first
            && is_same(&there, &config)
            && self.is_whole(&image, &current)?
        {
            return Ok(self.outcome(packed, &config, current, None));
        }
        let stored = Closer::new(self.upload.seal)?.close(&config.table_id, root)?;
        let table = Descriptor::of(ROOT, &stored);
        self.send(&table.digest, stored)?;
        layers.insert(0, table);
        let (bytes, image_size) = told::encode(&config, self.upload.seal);
        let descriptor = Descriptor::of(CONFIG, &bytes);
        self.send(&descriptor.digest, bytes)?;
        let manifest = Manifest::of_image(descriptor, layers);
        let mut needed: Vec<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
        let manifest = manifest.encode();
        let published = Published {
            tagged: tagged.clone(),
            digest: Digest::of(&manifest),
            manifest_size: manifest.len() as u64,
            image_size,
            time: self.upload.time,
            current: true,
        };
        self.sent.fetch_add(published.manifest_size, Ordering::Relaxed);
        backend.write_manifest(&tagged.name, &published.digest, manifest)?;
        needed.push(published.digest);
        match claim.name(&tagged.name, &needed, |epoch| backend.publish(&published, epoch))? {
            Settled::Named(replaced) => Ok(self.outcome(packed, &config, published, Some(replaced))),
            Settled::Gone(gone) => Ok(Outcome::Gone(gone)),
        }
    }

    fn outcome(
        &self,
        packed: &Packed,
        config: &Config,
        published: Published,
        replaced: Option<Replaced>,
    ) -> Outcome {
        Outcome::Published(Box::new(Uploaded {
            published,
            replaced,
            image_len: self.len,
            data_len: config.data,
            sent: self.sent.load(Ordering::Relaxed),
            new_chunks: packed.new_chunks,
            known_chunks: packed.known_chunks,
            entries: packed.entries.clone(),
        }))
    }

    fn pack(
        &self,
        pack: impl FnOnce(&Packing<'_>) -> Result<Packed, StoreError>,
    ) -> Result<Packed, StoreError> {
        pack(&Packing {
            seal: self.upload.seal,
            known: self.known,
            threads: self.upload.threads,
            send: &|digest, bytes| self.send(digest, bytes),
            done: &|len| {
                let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
                self.tell(done);
            },
            stop: &self.store.stop,
        })
    }

    fn tell(&self, done: u64) {
        let sent = self.sent.load(Ordering::Relaxed);
        (self.store.progress)(Progress::Upload {
            done: done.min(self.len),
            of: self.len,
            sent,
        });
    }

    /// Packs the table's segments like chunks; those that the store has are not sent again.
    fn pack_table(&self, packed: &Packed) -> Result<Table, StoreError> {
        let parts = segments(&packed.entries);
        let lens: Vec<u64> = parts
            .iter()
            .map(|part| part.iter().map(Entry::len).sum())
            .collect();
        let bytes = parts.iter().map(|part| encode_segment(part)).collect();
        let table = self.pack(|packing| pack_chunks(bytes, packing))?;
        let segments = lens.into_iter().zip(chunks(&table.entries));
        Ok(Table {
            segments: segments.map(|(len, at)| Segment { len, at }).collect(),
            bundles: table.bundles,
        })
    }

    /// Sends a blob, unless it is there: an upload that was ended has brought it, or another one. Says whether it was not there.
    fn send(&self, digest: &Digest, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let (backend, name) = (self.store.backend(), &self.upload.tagged.name);
        let len = bytes.len() as u64;
        if backend.blob_size(name, digest)? == Some(len) {
            return Ok(false);
        }
        backend.write_blob(name, digest, bytes)?;
        self.sent.fetch_add(len, Ordering::Relaxed);
        self.tell(self.done.load(Ordering::Relaxed));
        Ok(true)
    }

    /// Whether every blob of an image is there and as long as it should be, and the list of names has the manifest's length right.
    fn is_whole(&self, image: &crate::Image, version: &Published) -> Result<bool, StoreError> {
        let (backend, name) = (self.store.backend(), &self.upload.tagged.name);
        if image.manifest_size != version.manifest_size {
            return Ok(false);
        }
        let blobs: Vec<Descriptor> = image.manifest.blobs().cloned().collect();
        let sizes = crate::parallel::map(8, &blobs, |blob| backend.blob_size(name, &blob.digest))?;
        Ok(blobs
            .iter()
            .zip(sizes)
            .all(|(blob, size)| size == Some(blob.size)))
    }

    /// Sees that blobs of other images are there, as long as they should be, and makes them this one's.
    fn mount(&self, blobs: &[Digest]) -> Result<Mounted, StoreError> {
        let (backend, name) = (self.store.backend(), &self.upload.tagged.name);
        let mount = |blob: &Digest| -> Result<Option<u64>, StoreError> {
            if let Some(size) = backend.blob_size(name, blob)? {
                return Ok(Some(size));
            }
            match self.known.owner(blob) {
                Some(owner) if owner != name && backend.mount_blob(name, blob, owner)? => {
                    backend.blob_size(name, blob)
                }
                _ => Ok(None),
            }
        };
        let mut mounted = Mounted::default();
        for (blob, size) in blobs.iter().zip(crate::parallel::map(8, blobs, mount)?) {
            match size {
                Some(size) if self.known.size(blob).is_none_or(|known| known == size) => {
                    mounted.there.push((*blob, size));
                }
                _ => mounted.gone.push(*blob),
            }
        }
        Ok(mounted)
    }

    fn check_unchanged(&self) -> Result<(), StoreError> {
        match file_len(self.upload)? == self.len {
            true => Ok(()),
            false => Err(StoreError::Changed {
                path: self.upload.path.to_owned(),
            }),
        }
    }
}

/// Blobs of other images.
#[derive(Default)]
struct Mounted {
    /// With their sizes.
    there: Vec<(Digest, u64)>,
    gone: Vec<Digest>,
}

struct Table {
    segments: Vec<Segment>,
    bundles: Vec<(Digest, u64)>,
}

/// What is in an image, wherever it lies.
fn content(entries: &[Entry]) -> Digest {
    let mut hasher = Hasher::new();
    for entry in entries {
        hasher.update(&entry.len().to_le_bytes());
        match entry {
            Entry::Hole(_) => hasher.update(&[0; 32]),
            Entry::Chunk(locator) => hasher.update(locator.id.as_bytes()),
        }
    }
    hasher.finish()
}

fn is_same(there: &Config, config: &Config) -> bool {
    (there.content, there.size, &there.key, &there.about)
        == (config.content, config.size, &config.key, &config.about)
}
