//! An image as one file: an OCI archive, a tar of an image layout, for hosts that reach no store and for other programs that carry it.
//!
//! The files in it: `oci-layout`, `index.json` with `NAME:TAG` where other programs look for it, the manifest, its config, its table,
//! its bundles in the order of their digests, and what is said about the manifest, with its blobs. No clock, no owner: one version
//! gives the same bytes each time. Each blob is verified on its way.
//!
//! Bundles may hold much that other images of the store need and this one does not. A bundle of whose bytes the image uses less than
//! half is left out, and its used chunks go into new bundles; then table, config and manifest are new, too, and the archive's
//! image has another digest. So that is not done to a version about which something is said (its signatures name the digest), nor to
//! one that is sealed and whose key is not given. The others are copied as they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use firebrick_digest::{Digest, Hasher};

use crate::bundle::{Bundler, Place};
use crate::error::StoreError;
use crate::fetch::{RANGE_MAX, groups};
use crate::id::Id;
use crate::image::Image;
use crate::index::{Index, Published};
use crate::known::chunks;
use crate::layout::{LAYOUT, LAYOUT_KEY, blob_key};
use crate::manifest::{BUNDLE, CONFIG, Config, Descriptor, Manifest, ROOT};
use crate::seal::{Closer, Opener, Seal};
use crate::store::{Progress, Store};
use crate::table::{Entry, Locator, Root, Segment, encode_root, encode_segment, segments};
use crate::tar::{write_end, write_header, write_padding};
use crate::told;

/// Bytes of a blob that are held at a time.
const RANGE_LEN: u64 = 4 << 20;

/// What is written into an archive.
#[derive(Debug)]
pub struct Export<'a> {
    /// Which version.
    pub version: &'a Published,
    /// The key, if there is one.
    pub keys: &'a Seal,
    /// A folder for what is made before it is written; less than half of the archive's bytes.
    pub scratch: &'a Path,
}

/// What an export came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Digest of the manifest in the archive: the version's, unless bundles were left out.
    pub digest: Digest,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Bytes of bundles that were left out, since the image uses less than half of them.
    pub left_out: u64,
}

/// A blob of an archive, and where its bytes are.
struct Member {
    digest: Digest,
    len: u64,
    from: From,
}

enum From {
    Store,
    Memory(Vec<u8>),
    /// At this place of the scratch file.
    Scratch(u64),
}

/// What an archive holds.
struct Plan {
    manifest: Vec<u8>,
    members: Vec<Member>,
    left_out: u64,
}

impl Store {
    /// Writes an image and everything that it needs as an OCI archive. Whatever comes after an error is no archive.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn export(&self, export: &Export<'_>, writer: &mut dyn Write) -> Result<Exported, StoreError> {
        let version = export.version;
        let image = self.open(version)?;
        let said = self.backend().referrers(&version.tagged.name, &version.digest)?;
        let scratch = tempfile::tempfile_in(export.scratch).map_err(|source| StoreError::File {
            action: "write in",
            path: export.scratch.to_owned(),
            source,
        })?;
        let repacked = match image.seal(export.keys) {
            Ok(seal) if said.is_empty() => self.repack(&image, seal, export.scratch, &scratch)?,
            _ => None,
        };
        let mut plan = match repacked {
            Some(plan) => plan,
            None => self.as_it_is(&image)?,
        };
        let mut index = Index::default();
        let digest = Digest::of(&plan.manifest);
        index.publish(&Published {
            digest,
            manifest_size: plan.manifest.len() as u64,
            image_size: image.config.size,
            time: 0,
            current: true,
            ..version.clone()
        });
        for one in said {
            self.add_said(&image, &one, &mut plan)?;
            index.refer(&digest, one);
        }
        let writing = Writing {
            store: self,
            image: &image,
            scratch: &scratch,
            of: plan.members.iter().map(|member| member.len).sum(),
            done: 0,
            bytes: 0,
            writer,
        };
        let bytes = writing.write(&index.encode(), &plan)?;
        Ok(Exported {
            digest,
            bytes,
            left_out: plan.left_out,
        })
    }

    fn as_it_is(&self, image: &Image) -> Result<Plan, StoreError> {
        let mut seen = HashSet::new();
        let blobs = image.manifest.blobs().filter(|blob| seen.insert(blob.digest));
        Ok(Plan {
            manifest: self.source().manifest(&image.name, &image.digest)?,
            members: blobs.map(from_store).collect(),
            left_out: 0,
        })
    }

    /// Adds a manifest that says something about the image, and its blobs.
    fn add_said(&self, image: &Image, one: &Descriptor, plan: &mut Plan) -> Result<(), StoreError> {
        let bytes = self.source().manifest(&image.name, &one.digest)?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt {
            address: self.backend().address().to_owned(),
            what: format!("manifest {}", one.digest),
            problem: error.to_string(),
        })?;
        let blobs = manifest.blobs().map(from_store);
        for member in std::iter::once(in_memory(bytes)).chain(blobs) {
            if plan.members.iter().all(|there| there.digest != member.digest) {
                plan.members.push(member);
            }
        }
        Ok(())
    }

    /// The image without bundles that it hardly uses; nothing if there are none.
    fn repack(
        &self,
        image: &Image,
        seal: &Seal,
        path: &Path,
        scratch: &File,
    ) -> Result<Option<Plan>, StoreError> {
        let source = self.source();
        let root = source.root(image, seal)?;
        let mut entries = source.segments(image, &root.segments, seal, &|_| {})?.concat();
        let sparse = sparse(image, &root, &entries);
        if sparse.is_empty() {
            return Ok(None);
        }
        let mut bundles = Bundles::new(path, scratch);
        let moved = self.move_chunks(image, seal, &entries, &sparse, &mut bundles)?;
        bundles.close()?;
        for entry in &mut entries {
            if let Entry::Chunk(at) = entry
                && let Some(place) = moved.get(&at.id).filter(|_| sparse.contains_key(&at.blob))
            {
                *at = bundles.locator(*place, *at);
            }
        }
        let config = source.config(image, seal)?;
        let (config, layers, mut made) = retable(config, seal, &root, &entries, &mut bundles)?;
        let mut members = vec![made.remove(0), made.remove(0)];
        let kept: BTreeMap<Digest, u64> = chunks(&entries)
            .filter_map(|at| Some((at.blob, image.blob_len(&at.blob)?)))
            .collect();
        let mut bundled: Vec<Member> = kept
            .iter()
            .map(|(digest, len)| Member {
                digest: *digest,
                len: *len,
                from: From::Store,
            })
            .collect();
        bundled.extend(bundles.done.iter().map(|(digest, len, at)| Member {
            digest: *digest,
            len: *len,
            from: From::Scratch(*at),
        }));
        bundled.sort_by_key(|member| member.digest);
        bundled.dedup_by_key(|member| member.digest);
        let more = bundled
            .iter()
            .map(|member| Descriptor::new(BUNDLE, member.digest, member.len));
        let mut manifest = Manifest::of_image(config, layers.into_iter().chain(more).collect());
        manifest.annotations.clone_from(&image.manifest.annotations);
        members.extend(bundled);
        Ok(Some(Plan {
            manifest: manifest.encode(),
            members,
            left_out: sparse.values().sum(),
        }))
    }

    /// Puts the used chunks of some bundles into new ones, as they are stored, and tells where they are.
    fn move_chunks(
        &self,
        image: &Image,
        seal: &Seal,
        entries: &[Entry],
        sparse: &BTreeMap<Digest, u64>,
        bundles: &mut Bundles<'_>,
    ) -> Result<HashMap<Id, Place>, StoreError> {
        let wanted: Vec<Locator> = chunks(entries)
            .filter(|at| sparse.contains_key(&at.blob))
            .collect();
        let mut opener = Opener::new(seal)?;
        let mut moved = HashMap::new();
        for group in groups(wanted, RANGE_MAX) {
            self.check_stop()?;
            let Some(first) = group.chunks.first() else {
                continue;
            };
            let bytes = self
                .backend()
                .read_blob(&image.name, &first.blob, group.range.clone())?;
            for at in &group.chunks {
                if moved.contains_key(&at.id) {
                    continue;
                }
                let start = usize::try_from(u64::from(at.offset) - group.range.start).unwrap_or(usize::MAX);
                let stored = bytes
                    .get(start..)
                    .and_then(|rest| rest.get(..usize::try_from(at.stored).ok()?));
                let stored = stored.unwrap_or_default();
                let len = usize::try_from(at.len).unwrap_or(usize::MAX);
                opener
                    .open(&at.id, stored, len)
                    .map_err(|source| StoreError::Chunk {
                        address: self.backend().address().to_owned(),
                        blob: at.blob,
                        id: at.id,
                        source,
                    })?;
                moved.insert(at.id, bundles.add(&at.id, stored)?);
            }
        }
        Ok(moved)
    }

    pub(crate) fn check_stop(&self) -> Result<(), StoreError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }
}

/// Bundles of whose bytes an image uses less than half, with their lengths.
fn sparse(image: &Image, root: &Root, entries: &[Entry]) -> BTreeMap<Digest, u64> {
    let mut used: HashMap<Digest, u64> = HashMap::new();
    let mut seen = HashSet::new();
    for at in chunks(entries).chain(root.segments.iter().map(|segment| segment.at)) {
        if seen.insert((at.blob, at.offset)) {
            *used.entry(at.blob).or_default() += u64::from(at.stored);
        }
    }
    let hardly = |layer: &&Descriptor| used.get(&layer.digest).copied().unwrap_or(0) < layer.size / 2;
    image
        .manifest
        .layers
        .iter()
        .skip(1)
        .filter(hardly)
        .map(|layer| (layer.digest, layer.size))
        .collect()
}

fn from_store(blob: &Descriptor) -> Member {
    Member {
        digest: blob.digest,
        len: blob.size,
        from: From::Store,
    }
}

fn in_memory(bytes: Vec<u8>) -> Member {
    Member {
        digest: Digest::of(&bytes),
        len: bytes.len() as u64,
        from: From::Memory(bytes),
    }
}

/// A table of the entries where they are now: the config's descriptor, the root's, and both as members.
fn retable(
    mut config: Config,
    seal: &Seal,
    old: &Root,
    entries: &[Entry],
    bundles: &mut Bundles<'_>,
) -> Result<(Descriptor, Vec<Descriptor>, Vec<Member>), StoreError> {
    let mut closer = Closer::new(seal)?;
    let mut places = Vec::new();
    for part in segments(entries) {
        let bytes = encode_segment(part);
        let id = seal.id(&bytes);
        let stored = closer.close(&id, &bytes)?;
        let place = bundles.add(&id, &stored)?;
        let short = |len: usize| u32::try_from(len).expect("a segment is shorter than 4 GiB");
        let (stored, len) = (short(stored.len()), short(bytes.len()));
        let blob = Digest::from_bytes([0; 32]);
        let covered = part.iter().map(Entry::len).sum();
        places.push((
            place,
            covered,
            Locator {
                blob,
                offset: 0,
                stored,
                len,
                id,
            },
        ));
    }
    bundles.close()?;
    let segments = places.into_iter().map(|(place, len, at)| Segment {
        len,
        at: bundles.locator(place, at),
    });
    let root = encode_root(&Root {
        image_len: old.image_len,
        segments: segments.collect(),
    });
    config.table_len = root.len() as u64;
    config.table_id = seal.id(&root);
    let stored = closer.close(&config.table_id, &root)?;
    let (config, _) = told::encode(&config, seal);
    let descriptors = (
        Descriptor::of(CONFIG, &config),
        vec![Descriptor::of(ROOT, &stored)],
    );
    Ok((
        descriptors.0,
        descriptors.1,
        vec![in_memory(config), in_memory(stored)],
    ))
}

/// New bundles, in the scratch file.
struct Bundles<'a> {
    bundler: Bundler,
    path: &'a Path,
    scratch: &'a File,
    end: u64,
    /// Digest, length and place of each.
    done: Vec<(Digest, u64, u64)>,
}

impl<'a> Bundles<'a> {
    fn new(path: &'a Path, scratch: &'a File) -> Bundles<'a> {
        Bundles {
            bundler: Bundler::default(),
            path,
            scratch,
            end: 0,
            done: Vec::new(),
        }
    }

    fn add(&mut self, id: &Id, stored: &[u8]) -> Result<Place, StoreError> {
        let (place, full) = self.bundler.add(id, stored);
        full.into_iter().try_for_each(|bytes| self.keep(&bytes))?;
        Ok(place)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.bundler.close().map_or(Ok(()), |bytes| self.keep(&bytes))
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.scratch
            .write_all_at(bytes, self.end)
            .map_err(|source| StoreError::File {
                action: "write in",
                path: self.path.to_owned(),
                source,
            })?;
        self.done.push((Digest::of(bytes), bytes.len() as u64, self.end));
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Where a chunk lies, once its bundle is closed.
    fn locator(&self, place: Place, at: Locator) -> Locator {
        let (blob, ..) = self
            .done
            .get(place.bundle)
            .copied()
            .expect("its bundle is closed");
        Locator {
            blob,
            offset: place.offset,
            ..at
        }
    }
}

/// An archive that is being written.
struct Writing<'a> {
    store: &'a Store,
    image: &'a Image,
    scratch: &'a File,
    of: u64,
    done: u64,
    bytes: u64,
    writer: &'a mut dyn Write,
}

impl Writing<'_> {
    fn write(mut self, index: &[u8], plan: &Plan) -> Result<u64, StoreError> {
        let digest = Digest::of(&plan.manifest);
        self.file(LAYOUT_KEY, LAYOUT)?;
        self.file("index.json", index)?;
        self.file(&blob_key(&digest), &plan.manifest)?;
        for member in &plan.members {
            match &member.from {
                From::Memory(bytes) => self.file(&blob_key(&member.digest), bytes)?,
                _ => self.blob(member)?,
            }
        }
        let end = write_end(self.writer).and_then(|()| self.writer.flush());
        end.map_err(failed)?;
        Ok(self.bytes + 1024)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let len = bytes.len() as u64;
        write_header(self.writer, name, len).map_err(failed)?;
        self.writer.write_all(bytes).map_err(failed)?;
        self.end(len)
    }

    fn end(&mut self, len: u64) -> Result<(), StoreError> {
        self.bytes += 512 + len.next_multiple_of(512);
        write_padding(self.writer, len).map_err(failed)
    }

    fn blob(&mut self, member: &Member) -> Result<(), StoreError> {
        write_header(self.writer, &blob_key(&member.digest), member.len).map_err(failed)?;
        let mut hasher = Hasher::new();
        let mut position = 0;
        while position < member.len {
            self.store.check_stop()?;
            let end = position.saturating_add(RANGE_LEN).min(member.len);
            let bytes = self.read(member, position..end)?;
            hasher.update(&bytes);
            self.writer.write_all(&bytes).map_err(failed)?;
            self.done += end - position;
            position = end;
            (self.store.progress)(Progress::Download {
                done: self.done,
                of: self.of,
                came: self.done,
            });
        }
        match hasher.finish() {
            found if found == member.digest => self.end(member.len),
            found => Err(StoreError::Corrupt {
                address: self.store.backend().address().to_owned(),
                what: format!("blob {}", member.digest),
                problem: format!("its bytes have the digest {found}"),
            }),
        }
    }

    fn read(&self, member: &Member, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
        let From::Scratch(place) = member.from else {
            return self
                .store
                .backend()
                .read_blob(&self.image.name, &member.digest, range);
        };
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.scratch
            .read_exact_at(&mut bytes, place + range.start)
            .map_err(failed)?;
        Ok(bytes)
    }
}

fn failed(source: io::Error) -> StoreError {
    StoreError::Archive {
        action: "write",
        source,
    }
}
