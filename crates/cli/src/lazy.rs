//! Images that are read from a store without fetching them first.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use firebrick_reader::ReadAt;
use firebrick_serve::{Content, Disk, Event, Extent, Options, Server, Stopper};
use firebrick_store::{KeptKind, Lazy, LazyCounts, LazyOptions, Published, Reference};

use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;
use crate::trust::{Admitted, Fetching};

/// An image that is open, and the flag that ends its waits.
pub(crate) struct Opened {
    pub(crate) lazy: Arc<Lazy>,
    pub(crate) version: Published,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Opened {
    /// Ends what readers wait for.
    pub(crate) fn stop(&self) -> impl Fn() + Send + use<> {
        let stop = Arc::clone(&self.stop);
        move || stop.store(true, std::sync::atomic::Ordering::Relaxed)
    }
}

/// Opens a version of an image in a store.
pub(crate) fn open(
    args: &StoreArgs,
    reference: &Reference,
    home: &Home,
    talk: &Talk,
) -> anyhow::Result<Opened> {
    let stop = Arc::default();
    let store = Arc::new(args.open_until(
        home,
        remote::listener(&Arc::new(Steps::new(talk, 1)), talk),
        Arc::clone(&stop),
    )?);
    let opening = || format!("cannot open {reference} in {}", store.backend().address());
    let version = store.find(reference).with_context(opening)?;
    Fetching::of(home)?
        .judge(&store, &version, talk)
        .with_context(opening)?;
    let options = LazyOptions {
        cache_folder: Some(remote::cache(home).folder(KeptKind::Chunks)),
        requests: remote::REQUESTS,
        donors: images::list(home)?.into_iter().map(|image| image.path).collect(),
        ..LazyOptions::default()
    };
    let lazy = store
        .lazy(&version, &args.seal()?, options)
        .with_context(opening)?;
    Ok(Opened {
        lazy: Arc::new(lazy),
        version,
        stop,
    })
}

/// `fetched 12.1 MiB in 211 requests: 6.7 % of the image's 180.2 MiB`.
pub(crate) fn report(counts: &LazyCounts) -> String {
    format!(
        "fetched {} in {}: {:.1} % of the image's {}",
        text::bytes(counts.fetched_bytes),
        text::count(counts.requests, "request"),
        counts.fetched_share() * 100.0,
        text::bytes(counts.data_bytes),
    )
}

/// Failures that were told already: what reads an image tries again and again, and each try fails alike.
#[derive(Default)]
pub(crate) struct Told(Mutex<HashSet<String>>);

impl Told {
    /// No more than so many are told of one image; the first say what is wrong.
    const MOST: usize = 20;

    /// Whether to tell this one.
    pub(crate) fn is_new(&self, words: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < Self::MOST && told.insert(words.to_owned())
    }
}

/// What folders for sockets are called first, and the socket in one.
const PREFIX: &str = "lazy-";
const SOCKET: &str = "nbd";
/// How often a folder is made that somebody takes for one of a process that died.
const ATTEMPTS: usize = 100;

/// Whether a path is that of an image that a process serves itself, as long as it runs.
pub(crate) fn is_served(image: &Path) -> bool {
    let folder = image.parent().and_then(Path::file_name);
    image.file_name() == Some(SOCKET.as_ref())
        && folder.is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// A folder for a socket, locked as long as its process runs: what is not locked was left by one that was killed.
struct OwnFolder {
    path: tempfile::TempDir,
    _lock: File,
}

impl OwnFolder {
    fn create(run: &Path) -> io::Result<OwnFolder> {
        std::fs::create_dir_all(run)?;
        sweep(run);
        for _ in 0..ATTEMPTS {
            let path = tempfile::Builder::new().prefix(PREFIX).tempdir_in(run)?;
            // Until it was locked, another process may have swept it away.
            let lock = match File::open(path.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) && path.path().exists() {
                return Ok(OwnFolder { path, _lock: lock });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// Removes the folders of processes that were killed. Nothing here may stop a run: at worst a folder stays for the next.
fn sweep(run: &Path) {
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_ours
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// An image that is served to a VMM of this process, at a socket of its own.
pub(crate) struct Served {
    opened: Opened,
    socket: PathBuf,
    _folder: OwnFolder,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Begins to serve.
    pub(crate) fn start(opened: Opened, home: &Home, talk: &Talk) -> anyhow::Result<Served> {
        let serving = || format!("cannot serve {} to the VM", opened.version.tagged);
        let folder = OwnFolder::create(&home.run()).with_context(serving)?;
        let socket = folder.path.path().join(SOCKET);
        let server = Server::bind(&socket, Options::default()).with_context(serving)?;
        let stopper = server.stopper();
        let (disk, talking) = (LazyDisk(Arc::clone(&opened.lazy)), *talk);
        let thread = std::thread::spawn(move || {
            let told = Told::default();
            let tell = |event: Event| {
                if let Event::Failed { error, .. } = event {
                    let words = format!("the image cannot be read: {:#}", remote::Chain(&error));
                    if told.is_new(&words) {
                        talking.warn(&words);
                    }
                }
            };
            if let Err(error) = server.serve(&disk, &tell) {
                talking.warn(&format!("the image is no longer served: {error}"));
            }
        });
        Ok(Served {
            opened,
            socket,
            _folder: folder,
            stopper,
            thread: Some(thread),
        })
    }

    /// The image as it looks to who boots it.
    pub(crate) fn image(&self) -> anyhow::Result<Admitted> {
        let bytes = Box::new(LazyDisk(Arc::clone(&self.opened.lazy)));
        ImageFile::of_bytes(self.socket.clone(), bytes)
            .map(Admitted::of_store)
            .with_context(|| format!("cannot read {} as an image", self.opened.version.tagged))
    }

    /// What was fetched until now.
    pub(crate) fn counts(&self) -> LazyCounts {
        self.opened.lazy.counts()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        (self.opened.stop())();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it cannot panic
        }
    }
}

impl ReadAt for LazyDisk {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        Disk::read_at(self, offset, buffer)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.size())
    }
}

/// The image as a disk that others are served.
pub(crate) struct LazyDisk(pub(crate) Arc<Lazy>);

impl Disk for LazyDisk {
    fn size_bytes(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.0.read_at(offset, buffer) {
            Ok(len) if len == buffer.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
        let found = self.0.extent(range).map_err(io::Error::other)?;
        let content = if found.is_hole {
            Content::Hole
        } else {
            Content::Data
        };
        Ok(Extent {
            content,
            end: found.end,
        })
    }

    fn prefetch(&self, range: Range<u64>) {
        self.0.prefetch(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_told_once() {
        let told = Told::default();
        assert!(told.is_new("a") && told.is_new("b"));
        assert!(!told.is_new("a") && !told.is_new("b"));
        let more = (0..1000)
            .filter(|number| told.is_new(&number.to_string()))
            .count();
        assert_eq!(more, Told::MOST - 2);
    }

    #[test]
    fn folders_of_processes_that_died_go_with_the_next() {
        let run = tempfile::tempdir().unwrap();
        let at = |name: &str| run.path().join(name);
        for name in ["lazy-dead", "other"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join(SOCKET), "").unwrap();
        }
        let first = OwnFolder::create(run.path()).unwrap();
        let second = OwnFolder::create(run.path()).unwrap();
        assert!(!at("lazy-dead").exists() && at("other").exists());
        assert!(first.path.path().exists() && second.path.path().exists());
        assert!(is_served(&first.path.path().join(SOCKET)) && !is_served(&at("other").join(SOCKET)));
        let left = first.path.path().to_owned();
        drop(first);
        assert!(!left.exists());
    }
}
