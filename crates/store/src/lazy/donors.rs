//! Chunks that other images of this host have, as far as that is remembered.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::id::Id;
use crate::lazy::chunks::Key;
use crate::lazy::origin::Origin;
use crate::local::LocalImage;

/// Chunks that are known of, of 48 bytes each.
const CHUNKS_MAX: usize = 1 << 19;

struct Place {
    id: Id,
    len: u32,
    donor: u32,
    offset: u64,
}

/// See the module.
pub(super) struct Donors {
    files: Vec<File>,
    /// In the order of ids.
    places: Vec<Place>,
}

impl Donors {
    /// Images whose content this host remembers; no other is looked into. The first have the most to say.
    pub(super) fn open(origin: &Origin, paths: &[PathBuf]) -> Donors {
        let mut donors = Donors {
            files: Vec::new(),
            places: Vec::new(),
        };
        let cache = origin.source().cache;
        for path in paths {
            let found = LocalImage::open(path, &origin.seal, cache, false, 1, &origin.store.stop);
            // A file that cannot be read has nothing for us.
            let Ok(Some(image)) = found else { continue };
            let Ok(donor) = u32::try_from(donors.files.len()) else {
                break;
            };
            let room = CHUNKS_MAX.saturating_sub(donors.places.len());
            let places = image.chunks.iter().take(room).map(|here| Place {
                id: here.id,
                len: here.len,
                donor,
                offset: here.offset,
            });
            donors.places.extend(places);
            donors.files.push(image.file);
        }
        donors
            .places
            .sort_unstable_by_key(|place| (place.id, place.len, place.donor));
        donors.places.dedup_by_key(|place| (place.id, place.len));
        donors
    }

    /// A chunk's bytes, verified.
    pub(super) fn get(&self, key: &Key, origin: &Origin) -> Option<Vec<u8>> {
        let index = self.places.partition_point(|place| (place.id, place.len) < *key);
        let place = self
            .places
            .get(index)
            .filter(|place| (place.id, place.len) == *key)?;
        let file = self.files.get(usize::try_from(place.donor).ok()?)?;
        let mut bytes = vec![0; usize::try_from(place.len).ok()?];
        file.read_exact_at(&mut bytes, place.offset).ok()?;
        // The file may have changed since it was looked at.
        (origin.seal.id(&bytes) == place.id).then_some(bytes)
    }
}
