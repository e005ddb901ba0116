//! Images that are read from a store without fetching them first.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
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

/// An image that is served to a VMM of this process, at a socket of its own.
pub(crate) struct Served {
    opened: Opened,
    socket: PathBuf,
    _folder: tempfile::TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Begins to serve.
    pub(crate) fn start(opened: Opened, home: &Home, talk: &Talk) -> anyhow::Result<Served> {
        let serving = || format!("cannot serve {} to the VM", opened.version.tagged);
        std::fs::create_dir_all(home.run()).with_context(serving)?;
        let folder = tempfile::Builder::new()
            .prefix("lazy-")
            .tempdir_in(home.run())
            .with_context(serving)?;
        let socket = folder.path().join("nbd");
        let server = Server::bind(&socket, Options::default()).with_context(serving)?;
        let stopper = server.stopper();
        let (disk, talking) = (LazyDisk(Arc::clone(&opened.lazy)), *talk);
        let thread = std::thread::spawn(move || {
            let tell = |event: Event| {
                if let Event::Failed { error, .. } = event {
                    talking.warn(&format!("the image cannot be read: {:#}", remote::Chain(&error)));
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
