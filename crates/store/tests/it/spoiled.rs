//! A real server behind a proxy that spoils answers, and what is done with a store in it meanwhile.
//!
//! Whatever happens, names mean whole images, and the same command goes on: every operation sees to that by itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firebrick_store::{Checked, Downloaded, LazyOptions, Reference, Seal, StoreError, Uploaded};
use firebrick_testkit::fault::{Answer, End, Request, Server as Proxy};

use crate::common::{Host, Part, content, image};
use crate::servers::{By, Server};

/// How long a server may say nothing where that is what is tried. A registry on a busy disk takes more than half a second to write.
const SHORT: Duration = Duration::from_millis(1500);
/// And where it is not, on a machine with much else to do.
const LONG: Duration = Duration::from_secs(30);

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends before it is carried out.
    Reset,
    /// It is carried out, and the connection ends without an answer.
    Lost,
    /// It is carried out, and the answer says that it failed.
    Failed,
    /// It is not carried out, and may come again after so many seconds.
    Busy(u8),
    /// Half of the answer's body comes, if it has one.
    Truncated,
    /// It is carried out, and its answer comes too late, or stops in the middle.
    Slow,
}

/// Those that pass when the client asks again.
pub(crate) const PASSING: [Fault; 6] = [
    Fault::Reset,
    Fault::Lost,
    Fault::Failed,
    Fault::Busy(0),
    Fault::Truncated,
    Fault::Slow,
];

impl Fault {
    /// A word for it.
    pub(crate) fn name(self) -> String {
        let name = format!("{self:?}").to_lowercase();
        name.replace(['(', ')'], "")
    }

    fn spoil(self, request: &Request, ask: &dyn Fn() -> Answer) -> Answer {
        let nothing = Answer::default().ending(End::Lost);
        match self {
            Fault::Reset => nothing,
            Fault::Busy(seconds) => Answer::new(503, "").with("Retry-After", seconds.to_string()),
            Fault::Lost => {
                ask();
                nothing
            }
            Fault::Failed => {
                ask();
                Answer::new(500, "")
            }
            Fault::Truncated | Fault::Slow => {
                let answer = ask();
                let half = answer.body.len() / 2;
                match (self, request.method == "HEAD" || half == 0) {
                    (Fault::Truncated, false) => answer.ending(End::Cut(half)),
                    (Fault::Truncated, true) => nothing,
                    (_, false) => answer.ending(End::Held(half)),
                    (_, true) => {
                        std::thread::sleep(SHORT * 2);
                        answer
                    }
                }
            }
        }
    }
}

/// The same with one bit of its body changed; which, `seed` says.
pub(crate) fn damaged(mut answer: Answer, seed: usize) -> Answer {
    let len = answer.body.len();
    if let Some(byte) = answer.body.get_mut((len / 2 + 7 * seed) % len.max(1)) {
        *byte ^= 1;
    }
    answer
}

/// Makes the answer to a request, the so-manieth, with the means to ask the server.
type Edit = dyn Fn(usize, &Request, &dyn Fn() -> Answer) -> Answer + Send + Sync;

/// What is done on the way to a server.
pub(crate) struct Way {
    edit: Box<Edit>,
    patience: Duration,
}

impl Way {
    pub(crate) fn new(
        edit: impl Fn(usize, &Request, &dyn Fn() -> Answer) -> Answer + Send + Sync + 'static,
    ) -> Way {
        Way {
            edit: Box::new(edit),
            patience: LONG,
        }
    }

    /// Every answer arrives as it is.
    pub(crate) fn clear() -> Way {
        Way::new(|_, _, ask| ask())
    }

    /// A request of some kind meets a fault, once.
    pub(crate) fn once(fault: Fault, which: impl Fn(usize, &Request) -> bool + Send + Sync + 'static) -> Way {
        let hits = AtomicUsize::new(0);
        let way = Way::new(move |number, request, ask| {
            let is_it = which(number, request) && hits.fetch_add(1, Ordering::SeqCst) == 0;
            if is_it { fault.spoil(request, ask) } else { ask() }
        });
        Way {
            patience: if fault == Fault::Slow { SHORT } else { LONG },
            ..way
        }
    }

    /// The request of a number meets a fault.
    pub(crate) fn at(at: usize, fault: Fault) -> Way {
        Way::once(fault, move |number, _| number == at)
    }
}

/// A server, two versions of an image that share most, and a folder for everything.
pub(crate) struct World {
    pub(crate) server: Server,
    dir: tempfile::TempDir,
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

impl World {
    pub(crate) fn new(server: Server) -> World {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let base = content(1, 80);
        image(&old, &[Part::Data(&base), Part::Hole(5)]);
        let changed = content(2, 20);
        image(
            &new,
            &[
                Part::Data(&base[..70 * 4096]),
                Part::Hole(9),
                Part::Data(&changed),
            ],
        );
        World {
            server,
            dir,
            old,
            new,
        }
    }

    fn folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.dir.path()).unwrap()
    }

    /// A host that remembers nothing, and asks the server itself.
    pub(crate) fn direct(&self, prefix: &str) -> Host {
        self.server.host(prefix, None, &self.folder().keep())
    }

    /// What `work` does with a host that remembers nothing, and whose requests go by `way`; and how
    /// many requests there were.
    pub(crate) fn spoiled<T>(&self, prefix: &str, way: Way, work: impl FnOnce(Host) -> T) -> (T, usize) {
        let (count, Way { edit, patience }) = (AtomicUsize::new(0), way);
        let proxy = Proxy::before(&self.server.address(), move |request, ask| {
            edit(count.fetch_add(1, Ordering::SeqCst), request, ask)
        });
        let proxy = proxy.unwrap();
        let by = By {
            port: proxy.port(),
            patience,
        };
        let result = work(self.server.host(prefix, Some(&by), &self.folder().keep()));
        (result, proxy.requests().len())
    }

    /// The name means this file, its former version is there, and nothing in the store is damaged.
    pub(crate) fn assert_whole(&self, prefix: &str, file: &Path, versions: usize) -> Checked {
        let host = self.direct(prefix);
        let out = self.folder();
        host.download("x", &out.path().join("x"), &[]).unwrap();
        let is_same = fs::read(out.path().join("x")).unwrap() == fs::read(file).unwrap();
        assert!(is_same, "{prefix}");
        let history = host.store.backend().history(&"x".parse().unwrap()).unwrap();
        assert_eq!(history.len(), versions, "{prefix}: {history:?}");
        let checked = host.check();
        assert!(
            checked.findings.is_empty() && checked.broken.is_empty(),
            "{prefix}: {checked:?}"
        );
        assert_eq!(usize::try_from(checked.images).unwrap(), versions, "{prefix}");
        checked
    }

    /// Where what a download reads lies that has a digest.
    pub(crate) fn contents(&self, prefix: &str) -> BTreeSet<String> {
        let paths: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let copy = Arc::clone(&paths);
        let way = Way::new(move |_, request, ask| {
            if request.path().contains("/blobs/") || request.path().contains("/manifests/") {
                copy.lock().unwrap().insert(request.path().to_owned());
            }
            ask()
        });
        self.downloaded(prefix, way);
        paths.lock().unwrap().clone()
    }

    /// Replaces a version by another while answers are spoiled: it is replaced, or is what it was. And how many requests there were.
    pub(crate) fn upload(&self, prefix: &str, way: Way) -> (Result<Uploaded, StoreError>, usize) {
        self.direct(prefix).upload(&self.old, "x").unwrap();
        let (result, count) = self.spoiled(prefix, way, |host| host.upload(&self.new, "x"));
        if let Err(error) = &result {
            let out = self.folder();
            self.direct(prefix)
                .download("x", &out.path().join("x"), &[])
                .unwrap();
            let out = fs::read(out.path().join("x")).unwrap();
            let is_either = [&self.old, &self.new].map(|path| fs::read(path).unwrap() == out);
            assert!(is_either.contains(&true), "{prefix}: {error}");
            self.direct(prefix).upload(&self.new, "x").unwrap();
        }
        self.assert_whole(prefix, &self.new, 2);
        (result, count)
    }

    /// Fetches the image over an older file while answers are spoiled: it is right, or the file is what it was, and the same command
    /// goes on. And how many requests there were.
    pub(crate) fn download(&self, prefix: &str, way: Way) -> (Result<Downloaded, StoreError>, usize) {
        let folder = self.folder();
        let target = folder.path().join("image");
        fs::write(&target, "older").unwrap();
        let (result, count) = self.spoiled(prefix, way, |host| host.download("x", &target, &[]));
        if let Err(error) = &result {
            assert_eq!(fs::read(&target).unwrap(), b"older", "{error}");
            let there = fs::read_dir(folder.path()).unwrap().flatten();
            // Besides the target there is at most what a next try goes on with.
            let others: Vec<_> = there.map(|entry| entry.file_name()).collect();
            let is_partial = |name: &OsString| name.to_string_lossy().starts_with(".image.download-");
            assert!(
                others.iter().all(|name| name == "image" || is_partial(name)),
                "{others:?}"
            );
            self.direct(prefix).download("x", &target, &[]).unwrap();
        }
        assert!(
            fs::read(&target).unwrap() == fs::read(&self.new).unwrap(),
            "{prefix}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{prefix}");
        (result, count)
    }

    /// Reads all of the image without fetching it first, while answers are spoiled; what is read is right.
    pub(crate) fn read(&self, prefix: &str, way: Way) -> (Result<(), Arc<StoreError>>, usize) {
        let options = LazyOptions {
            cache_folder: Some(self.folder().keep()),
            requests: 2,
            ..LazyOptions::default()
        };
        let right = fs::read(&self.new).unwrap();
        self.spoiled(prefix, way, |host| {
            let store = Arc::new(host.store);
            let version = store.find(&"x".parse::<Reference>().unwrap())?;
            let lazy = store.lazy(&version, &Seal::PLAIN, options)?;
            let mut bytes = vec![0; right.len()];
            for (number, piece) in bytes.chunks_mut(100_000).enumerate() {
                let offset = number as u64 * 100_000;
                assert_eq!(lazy.read_at(offset, piece)?, piece.len());
            }
            assert!(bytes == right, "{prefix}");
            Ok(())
        })
    }

    /// An upload that comes to its end, and how many requests there were. In a bucket the name is changed in one step.
    pub(crate) fn uploaded(&self, prefix: &str, way: Way) -> usize {
        let (uploaded, count) = self.upload(prefix, way);
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{prefix}: {error:?}"));
        let replaced = uploaded.replaced.unwrap();
        let history = self
            .direct(prefix)
            .store
            .backend()
            .history(&uploaded.published.tagged);
        assert_eq!(replaced.previous, Some(history.unwrap()[1].digest), "{prefix}");
        assert_eq!(
            replaced.atomic,
            matches!(self.server, Server::Bucket(_)),
            "{prefix}"
        );
        count
    }

    /// A download that comes to its end, and how many requests there were.
    pub(crate) fn downloaded(&self, prefix: &str, way: Way) -> usize {
        let (downloaded, count) = self.download(prefix, way);
        downloaded.unwrap_or_else(|error| panic!("{prefix}: {error:?}"));
        count
    }

    /// A lazy read that comes to its end, and how many requests there were.
    pub(crate) fn read_all(&self, prefix: &str, way: Way) -> usize {
        let (read, count) = self.read(prefix, way);
        read.unwrap_or_else(|error| panic!("{prefix}: {error:?}"));
        count
    }
}
