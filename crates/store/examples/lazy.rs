//! What reading an image lazily costs: `lazy IMAGE [LATENCY_MS]`.
//!
//! Publishes the image into a new folder, then reads it there through a store that takes `LATENCY_MS` (20) for each request: all of it in
//! order; small parts anywhere; the same again with the first run's trace, and with a warm cache. Prints a line for each.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_store::{
    About, Folder, Layout, Lazy, LazyOptions, Published, Seal, Store, StoreError, TableCache, Upload,
};

#[path = "../tests/it/watched.rs"]
#[expect(dead_code, reason = "tests watch more closely")]
mod watched;

/// Reads of the run that reads anywhere.
const RANDOM_READS: u64 = 2000;

fn store(folder: &Path, cache: &Path, latency: Duration) -> Arc<Store> {
    let watch = Arc::default();
    let backend = watched::Watched::new(folder, &watch);
    watch.set(move |_| {
        std::thread::sleep(latency);
        Ok(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let cache = Some(TableCache::new(cache));
    Arc::new(Store::new(Box::new(backend), cache, Box::new(|_| ()), stop))
}

fn publish(path: &Path, folder: &Path, cache: &Path) -> Result<Published, Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    let backend = Box::new(Layout::new(Folder::new(folder)));
    let cache = Some(TableCache::new(cache));
    let uploaded = Store::new(backend, cache, Box::new(|_| ()), stop).upload(&Upload {
        file: &File::open(path)?,
        path,
        tagged: &"image".parse()?,
        about: About::default(),
        seal: &Seal::PLAIN,
        time: 0,
        threads: 2,
    })?;
    Ok(uploaded.published)
}

fn in_order(lazy: &Lazy) -> Result<u64, Arc<StoreError>> {
    let mut buffer = vec![0; 128 << 10];
    let (mut at, mut reads) = (0, 0);
    while at < lazy.size() {
        let extent = lazy.extent(at..lazy.size())?;
        while !extent.is_hole && at < extent.end {
            at += lazy.read_at(at, &mut buffer)? as u64;
            reads += 1;
        }
        at = at.max(extent.end);
    }
    Ok(reads)
}

fn anywhere(lazy: &Lazy) -> Result<u64, Arc<StoreError>> {
    let mut buffer = vec![0; 4096];
    for number in 0..RANDOM_READS {
        let digest = Digest::of(&number.to_le_bytes());
        let number = digest
            .as_bytes()
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        lazy.read_at(number % lazy.size() / 4096 * 4096, &mut buffer)?;
    }
    Ok(RANDOM_READS)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, rest @ ..] = &args[..] else {
        return Err("usage: lazy IMAGE [LATENCY_MS]".into());
    };
    let latency = Duration::from_millis(rest.first().map_or(Ok(20), |text| text.parse())?);
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let version = publish(Path::new(image), &at("store"), &at("publisher"))?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<24} {:>7} {:>8} {:>10} {:>9} {:>7} {:>8}",
        "read", "reads", "requests", "fetched", "share", "cached", "seconds"
    )?;
    type Reading = fn(&Lazy) -> Result<u64, Arc<StoreError>>;
    let runs: [(&str, &str, Reading, u64, bool); 6] = [
        ("in order, nothing ahead", "a", in_order, 0, false),
        ("in order", "b", in_order, 4 << 20, false),
        ("in order, again", "b", in_order, 4 << 20, false),
        ("anywhere", "c", anywhere, 4 << 20, false),
        ("anywhere, with a trace", "d", anywhere, 4 << 20, true),
        ("anywhere, again", "d", anywhere, 4 << 20, false),
    ];
    let mut trace = Vec::new();
    for (name, host, reading, readahead_bytes, traced) in runs {
        let folder: PathBuf = at(host);
        let options = LazyOptions {
            cache_folder: Some(folder.clone()),
            readahead_bytes,
            trace: if traced {
                std::mem::take(&mut trace)
            } else {
                Vec::new()
            },
            ..LazyOptions::default()
        };
        let begin = Instant::now();
        let store = store(&at("store"), &folder.join("tables"), latency);
        let lazy = store.lazy(&version, &Seal::PLAIN, options)?;
        let reads = reading(&lazy)?;
        let (seconds, counts) = (begin.elapsed().as_secs_f64(), lazy.counts());
        trace = lazy.trace();
        writeln!(
            out,
            "{name:<24} {reads:>7} {:>8} {:>6} MiB {:>7.2} % {:>7} {seconds:>8.2}",
            counts.requests,
            counts.fetched_bytes >> 20,
            counts.fetched_share() * 100.0,
            counts.cache_chunks
        )?;
    }
    Ok(())
}
