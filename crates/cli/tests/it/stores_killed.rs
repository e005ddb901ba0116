//! Uploads and downloads that are killed in the middle, and gone on with by the same command.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firebrick_testkit::fault::{Answer, Request};
use firebrick_testkit::stores;

use crate::stores::{Place, home_of, image, read, through};
use crate::support::Home;
use crate::support::folder::names_in;

/// Bytes of the image: some bundles.
const LEN: u64 = 40_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets so many of the requests for content through, and holds those after them back until nobody waits for them any more.
#[derive(Clone, Default)]
struct Gate {
    passed: Arc<AtomicUsize>,
    waiting: Arc<AtomicBool>,
    is_open: Arc<AtomicBool>,
}

impl Gate {
    fn pass(&self, request: &Request, method: &str, count: usize, ask: &dyn Fn() -> Answer) -> Answer {
        let is_content = request.method == method && is_large(request);
        if !is_content || self.is_open.load(Ordering::Relaxed) {
            return ask();
        }
        if self.passed.load(Ordering::Relaxed) >= count {
            self.waiting.store(true, Ordering::Relaxed);
            let begun = Instant::now();
            while !self.is_open.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            return Answer::default().ending(firebrick_testkit::fault::End::Lost);
        }
        let answer = ask();
        self.passed.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Runs the command until requests wait, and kills it.
    fn kill(&self, home: &Home, place: &Place, args: &[&str], count: usize) {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("FIREBRICK_HOME", home.path().join("fb"))
            .env("FIREBRICK_STORE", &place.address)
            .envs(place.variables.clone())
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let begun = Instant::now();
        while self.passed.load(Ordering::Relaxed) < count || !self.waiting.load(Ordering::Relaxed) {
            assert!(begun.elapsed() < PATIENCE, "nothing waits");
            assert!(
                child.try_wait().expect("a status").is_none(),
                "it ended by itself"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        // What has passed is put in place meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        child.kill().expect("it runs");
        child.wait().expect("a status");
        self.is_open.store(true, Ordering::Relaxed);
    }
}

/// Bundles or ranges of them, not documents.
fn is_large(request: &Request) -> bool {
    let len = |name| request.header(name).and_then(|len| len.parse::<u64>().ok());
    let range = request.header("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some(to.parse::<u64>().ok()? - from.parse::<u64>().ok()?)
    });
    range.or(len("content-length")).is_some_and(|len| len > 1 << 20)
}

#[test]
fn a_killed_upload_is_gone_on_with() {
    let Some(store) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    let home = home_of(LEN);
    let gate = Gate::default();
    let held = gate.clone();
    let (_proxy, place) = through(&store, move |request, ask| held.pass(request, "PUT", 2, ask));
    gate.kill(&home, &place, &["rootfs", "upload", "-l", "app"], 2);
    assert_eq!(
        place.json(&Home::new(), &["rootfs", "list", "-r"]),
        serde_json::json!([])
    );
    let sent = place.json(&home, &["rootfs", "upload", "-l", "app"]);
    let bytes = sent["sent_bytes"].as_u64().expect("a number");
    // Two bundles, 4 MiB each at least, were there.
    assert!(bytes < LEN - (8 << 20) && bytes > 0, "{sent}");
    assert_eq!(names_in(&home.path().join("fb/images")), ["rootfs-app.ext4"]);
    let there = Home::new();
    place.run(&there, &["rootfs", "download", "-l", "app"]);
    assert!(read(&there, "app") == read(&home, "app"));
}

#[test]
fn a_killed_download_is_gone_on_with() {
    let Some(store) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    let home = home_of(LEN);
    Place::of(&store).run(&home, &["rootfs", "upload", "-l", "app"]);
    let gate = Gate::default();
    let held = gate.clone();
    let (_proxy, place) = through(&store, move |request, ask| held.pass(request, "GET", 4, ask));
    let there = Home::new();
    gate.kill(&there, &place, &["rootfs", "download", "-l", "app"], 4);
    assert!(!image(&there, "app").exists());
    let left = names_in(&there.path().join("fb/images"));
    assert_eq!(left.len(), 1, "{left:?}");
    let fetched = place.json(&there, &["rootfs", "download", "-l", "app"]);
    let bytes = fetched["fetched_bytes"].as_u64().expect("a number");
    // How much of what had come was written down when it was killed is a matter of luck; that anything was is not.
    assert!(bytes < LEN - (1 << 20) && bytes > 0, "{fetched}");
    assert!(
        fetched["known_chunks"].as_u64().is_some_and(|count| count > 0),
        "{fetched}"
    );
    assert!(read(&there, "app") == read(&home, "app"));
    assert_eq!(names_in(&there.path().join("fb/images")), ["rootfs-app.ext4"]);
}

/// Nothing of a download that nobody goes on with stays behind for long: the next of that name takes it away.
#[test]
fn what_a_killed_download_left_goes() {
    let Some(store) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    let home = home_of(LEN);
    Place::of(&store).run(&home, &["rootfs", "upload", "-l", "app"]);
    let gate = Gate::default();
    let held = gate.clone();
    let (_proxy, place) = through(&store, move |request, ask| held.pass(request, "GET", 1, ask));
    let there = Home::new();
    gate.kill(&there, &place, &["rootfs", "download", "-l", "app"], 1);
    place.run(&home, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    place.run(&home, &["rootfs", "upload", "-l", "app"]);
    place.run(&there, &["rootfs", "download", "-l", "app"]);
    assert!(read(&there, "app") == read(&home, "app"));
    assert_eq!(names_in(&there.path().join("fb/images")), ["rootfs-app.ext4"]);
}
