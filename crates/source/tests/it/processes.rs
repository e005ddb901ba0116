//! Several processes and one cache: a blob is fetched once, and whoever dies leaves the others what it had.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_source::{Cache, Event};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Request, Server};

use crate::support::registry::{layers, registry_with};
use crate::support::{gzip, open, options, read};

const REFERENCE: &str = "FIREBRICK_TEST_PULL";
const CACHE: &str = "FIREBRICK_TEST_CACHE";
/// How many bytes of the large layer come before the server holds the rest back.
const HELD_AFTER: usize = 1 << 20;

/// Pulls an image and tells what happens, for the tests below, which start it as a process of its own.
#[test]
#[ignore = "a program for other tests"]
#[expect(clippy::print_stdout, reason = "a program talks to who started it")]
fn pull() {
    let (Ok(reference), Ok(cache)) = (std::env::var(REFERENCE), std::env::var(CACHE)) else {
        return;
    };
    let mut options = options();
    options.cache = Some(Cache::open(cache).unwrap());
    options.events = Arc::new(|event| match event {
        Event::WaitingForOther { layer } => println!("\nwaiting {layer}"),
        Event::DownloadStarted {
            layer, resumed_bytes, ..
        } => println!("\nstarted {layer} at {resumed_bytes}"),
        _ => {}
    });
    let image = open(&reference, &options).unwrap();
    for layer in &image.layers {
        println!("\nlayer {}", Digest::of(&read(layer).unwrap()));
    }
    println!("\ndone");
}

/// That process; it ends with this value.
struct Puller {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    all: Vec<String>,
}

impl Puller {
    fn start(reference: &str, cache: &Path) -> Puller {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "processes::pull"])
            .env(REFERENCE, reference)
            .env(CACHE, cache)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Puller {
            child,
            said,
            all: Vec::new(),
        }
    }

    /// Reads on to this line.
    fn wait_for(&mut self, wanted: &str) {
        for line in self.said.by_ref() {
            let line = line.unwrap();
            let found = line == wanted;
            self.all.push(line);
            if found {
                return;
            }
        }
        panic!("it ended before {wanted:?}: {:#?}", self.all);
    }

    /// Reads to the end; it must have read the layers right.
    fn finish(mut self) -> Vec<String> {
        self.wait_for("done");
        assert!(self.child.wait().unwrap().success());
        for layer in layers() {
            let line = format!("layer {}", Digest::of(&gzip(&layer)));
            assert!(self.all.contains(&line), "{line}: {:#?}", self.all);
        }
        std::mem::take(&mut self.all)
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registry that holds the large layer back until told, but not if it is asked for the rest of one.
struct Slow {
    front: Server,
    release: Arc<AtomicBool>,
    cache: tempfile::TempDir,
    _registry: DockerRegistry,
}

impl Slow {
    fn start() -> Slow {
        let registry = registry_with(&Setup::default(), &layers());
        let release = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&release);
        let front = Server::before(&registry.host, move |request, mut answer| {
            if request.header("range").is_none() && answer.body.len() > HELD_AFTER {
                answer.hold = Some((HELD_AFTER, Arc::clone(&held)));
            }
            answer
        });
        Slow {
            front,
            release,
            cache: tempfile::tempdir().unwrap(),
            _registry: registry,
        }
    }

    fn pull(&self) -> Puller {
        Puller::start(
            &format!("{}/test/image:v1", self.front.address),
            self.cache.path(),
        )
    }

    fn partial(&self) -> PathBuf {
        let large = Digest::of(&gzip(&layers()[0]));
        self.cache
            .path()
            .join("partial")
            .join(format!("{}.partial", large.hex()))
    }

    /// Everything of the image is in the cache, whole, and nothing else.
    fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.cache.path().join("partial")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let blobs = Cache::open(self.cache.path()).unwrap().list().unwrap();
        assert_eq!(blobs.len(), 4, "manifest, config, two layers: {blobs:?}");
        for blob in blobs {
            let path = self.cache.path().join("blobs/sha256").join(blob.digest.hex());
            assert_eq!(Digest::of(&fs::read(path).unwrap()), blob.digest);
        }
    }

    /// Requests for the large layer.
    fn requests(&self) -> Vec<Request> {
        let large = Digest::of(&gzip(&layers()[0])).to_string();
        let mut requests = self.front.blob_requests();
        requests.retain(|request| request.target.ends_with(&large));
        requests
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.release.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_fetches_and_the_others_wait() {
    if !have_tools() {
        return;
    }
    let slow = Slow::start();
    let mut first = slow.pull();
    first.wait_for("started 0 at 0");
    let mut others = [slow.pull(), slow.pull()];
    for other in &mut others {
        other.wait_for("waiting 0");
    }
    slow.release.store(true, Ordering::Relaxed);
    first.finish();
    for other in others {
        other.finish();
    }
    assert_eq!(slow.requests().len(), 1);
    slow.assert_clean();
}

#[test]
fn another_goes_on_where_one_was_killed() {
    if !have_tools() {
        return;
    }
    let slow = Slow::start();
    let mut first = slow.pull();
    first.wait_for("started 0 at 0");
    let mut second = slow.pull();
    second.wait_for("waiting 0");
    let start = Instant::now();
    while fs::metadata(slow.partial()).unwrap().len() < HELD_AFTER as u64 {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(first);
    let said = second.finish();
    assert!(said.contains(&format!("started 0 at {HELD_AFTER}")), "{said:#?}");
    let requests = slow.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1048576-")]);
    slow.assert_clean();
}
