//! Images made of numbers, and stores in folders.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use firebrick_bucket::Bucket;
use firebrick_digest::Digest;
use firebrick_store::{
    About, Backend, CheckOptions, Checked, Download, Downloaded, Folder, Layout, Reference, Seal, Store,
    StoreError, TableCache, Upload, Uploaded,
};

/// Bytes that look like files: every fourth block is random, the others are text.
pub(crate) fn content(seed: u64, blocks: u64) -> Vec<u8> {
    let block = |number: u64| {
        let digest = Digest::of(format!("{seed} {number}").as_bytes());
        let text = format!("line {number} of file {seed}: {}\n", &digest.hex()[..8]).into_bytes();
        let source = if number.is_multiple_of(4) {
            digest.as_bytes().to_vec()
        } else {
            text
        };
        let mut bytes = Vec::with_capacity(4096);
        for round in 0_u32.. {
            let left = 4096 - bytes.len();
            let piece = if number.is_multiple_of(4) {
                Digest::of(&[&source[..], &round.to_le_bytes()].concat())
                    .as_bytes()
                    .to_vec()
            } else {
                source.clone()
            };
            bytes.extend_from_slice(&piece[..piece.len().min(left)]);
            if bytes.len() == 4096 {
                break;
            }
        }
        bytes
    };
    (0..blocks).flat_map(block).collect()
}

/// An image file of some parts; a number is a hole of so many blocks.
pub(crate) fn image(path: &Path, parts: &[Part<'_>]) {
    let mut file = File::create(path).unwrap();
    let mut len = 0;
    for part in parts {
        match part {
            Part::Data(bytes) => {
                use std::os::unix::fs::FileExt as _;
                file.write_all_at(bytes, len).unwrap();
                len += bytes.len() as u64;
            }
            Part::Hole(blocks) => len += blocks * 4096,
        }
    }
    file.set_len(len).unwrap();
    file.flush().unwrap();
}

pub(crate) enum Part<'a> {
    Data(&'a [u8]),
    Hole(u64),
}

/// A store in a bucket of a real server's, below `prefix`, by a client of its own.
pub(crate) fn bucket(server: &firebrick_testkit::stores::Store, prefix: &str) -> Box<dyn Backend> {
    let options = firebrick_bucket::Options {
        variables: server.variables(),
        system_ca: false,
        ..firebrick_bucket::Options::default()
    };
    let bucket = Bucket::open(&format!("{}/{prefix}", server.address()), options).unwrap();
    Box::new(Layout::new(bucket))
}

/// A host: its cache, and a store that it uses.
pub(crate) struct Host {
    pub(crate) store: Store,
    pub(crate) seal: Seal,
}

impl Host {
    /// A host with a cache of its own, and the store in `folder`.
    pub(crate) fn new(folder: &Path, cache: &Path) -> Host {
        Host::of(Box::new(Layout::new(Folder::new(folder))), cache)
    }

    /// A host with a cache of its own, and another store.
    pub(crate) fn of(backend: Box<dyn Backend>, cache: &Path) -> Host {
        let stop = Arc::new(AtomicBool::new(false));
        let store = Store::new(backend, Some(TableCache::new(cache)), Box::new(|_| ()), stop);
        Host {
            store,
            seal: Seal::PLAIN,
        }
    }

    pub(crate) fn upload(&self, path: &Path, name: &str) -> Result<Uploaded, StoreError> {
        self.store.upload(&Upload {
            file: &File::open(path).unwrap(),
            path,
            tagged: &name.parse().unwrap(),
            about: About {
                format: "ext4".to_owned(),
                ..About::default()
            },
            seal: &self.seal,
            time: 1_700_000_000,
            threads: 2,
        })
    }

    /// What a check of everything says, which mends nothing.
    pub(crate) fn check(&self) -> Checked {
        let options = CheckOptions {
            repair: false,
            keys: &self.seal,
            local: &[],
            threads: 2,
        };
        self.store.check(&options).unwrap()
    }

    pub(crate) fn download(
        &self,
        name: &str,
        target: &Path,
        donors: &[PathBuf],
    ) -> Result<Downloaded, StoreError> {
        let reference: Reference = name.parse().unwrap();
        let version = self.store.find(&reference)?;
        self.store.download(&Download {
            version: &version,
            keys: &self.seal,
            target,
            donors,
            scans: 4,
            requests: 4,
            threads: 2,
        })
    }
}
