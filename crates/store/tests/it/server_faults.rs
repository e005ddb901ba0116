//! Real servers of which every request in turn goes wrong, in each of several ways, once or from then on.
//!
//! An upload or a download then ends right or says that it failed; the store stays right; nothing wrong lies under a name; and the same
//! command without the fault brings what was wanted.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firebrick_store::{CheckOptions, Seal};
use firebrick_testkit::fault::{Answer, End, Request, Server as Proxy};

use crate::common::{Part, content, image};
use crate::servers::Server;

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The connection ends before the request is sent on.
    Lost,
    /// It is done, and the connection ends before the answer.
    Unheard,
    /// The server has failed.
    Failed,
    /// The server wants to be left alone for a moment.
    Busy,
    /// The answer ends in the middle.
    Truncated,
    /// The answer has other bytes in the middle.
    Damaged,
    /// The answer takes its time.
    Slow,
    /// Half of the answer comes, and then nothing more.
    Stuck,
}

const FAULTS: [Fault; 8] = [
    Fault::Lost,
    Fault::Unheard,
    Fault::Failed,
    Fault::Busy,
    Fault::Truncated,
    Fault::Damaged,
    Fault::Slow,
    Fault::Stuck,
];

impl Fault {
    fn apply(self, request: &Request, ask: &dyn Fn() -> Answer) -> Answer {
        match self {
            Fault::Lost => Answer::default().ending(End::Lost),
            Fault::Unheard => ask().ending(End::Lost),
            Fault::Failed => Answer::new(500, "out of order"),
            Fault::Busy => Answer::new(503, "too much to do").with("Retry-After", "0"),
            Fault::Slow => {
                std::thread::sleep(Duration::from_millis(100));
                ask()
            }
            Fault::Truncated | Fault::Stuck | Fault::Damaged if request.method == "HEAD" => ask(),
            Fault::Truncated => halved(ask(), End::Cut),
            Fault::Stuck => halved(ask(), End::Held),
            Fault::Damaged => {
                let mut answer = ask();
                let middle = answer.body.len() / 2;
                answer
                    .body
                    .iter_mut()
                    .skip(middle)
                    .take(16)
                    .for_each(|byte| *byte ^= 0xff);
                answer
            }
        }
    }

    /// Whether a client can be expected to get over it, if it happens once.
    fn passes(self) -> bool {
        self != Fault::Damaged
    }
}

fn halved(answer: Answer, end: fn(usize) -> End) -> Answer {
    match answer.body.len() {
        0 => answer,
        len => answer.ending(end(len / 2)),
    }
}

/// A proxy that lets requests through, but the one of that number, or all from it on.
fn proxy(server: &Server, fault: Fault, position: u64, stays: bool, count: &Arc<AtomicU64>) -> Proxy {
    let count = Arc::clone(count);
    let edit = move |request: &Request, ask: &dyn Fn() -> Answer| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        match number == position || stays && number > position {
            true => fault.apply(request, ask),
            false => ask(),
        }
    };
    Proxy::before(&server.host(), edit).unwrap()
}

/// One fault at each request of an upload and a download in turn.
struct Trial<'a> {
    server: &'a Server,
    fault: Fault,
    stays: bool,
    dir: &'a Path,
}

impl Trial<'_> {
    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(name)
    }

    /// Every `step`-th request of an upload over an image that is there, until there are no more.
    fn uploads(&self, step: u64) {
        for position in (0..).step_by(usize::try_from(step).unwrap()) {
            let prefix = format!("{:?}{}{position}", self.fault, self.stays).to_lowercase();
            let before = self.server.client(&prefix, &self.at(&format!("{prefix}-a")));
            before.upload(&self.at("old"), "app").unwrap();
            let count = Arc::default();
            let proxy = proxy(self.server, self.fault, position, self.stays, &count);
            let client = self
                .server
                .client_by(proxy.port(), &prefix, &self.at(&format!("{prefix}-b")));
            let result = client.upload(&self.at("new"), "app");
            drop(proxy);
            let is_over = count.load(Ordering::Relaxed) <= position;
            if is_over || (self.fault.passes() && !self.stays) {
                assert!(result.is_ok(), "{:?} at {position}: {result:?}", self.fault);
            }
            // Whatever was said, the name means an image that is whole, and the wanted one if it was said so.
            let back = self.at(&format!("{prefix}-now"));
            before.download("app", &back, &[]).unwrap();
            let now = fs::read(back).unwrap();
            let is_new = now == fs::read(self.at("new")).unwrap();
            assert!(is_new || result.is_err() && now == fs::read(self.at("old")).unwrap());
            before.upload(&self.at("new"), "app").unwrap();
            self.is_right(&prefix);
            if is_over {
                return;
            }
        }
    }

    /// The same of a download over an image that is there.
    fn downloads(&self, step: u64) {
        let prefix = format!("down{:?}{}", self.fault, self.stays).to_lowercase();
        let cache = |name: &str| self.at(&format!("{prefix}-{name}"));
        let direct = self.server.client(&prefix, &cache("a"));
        direct.upload(&self.at("new"), "app").unwrap();
        for position in (0..).step_by(usize::try_from(step).unwrap()) {
            let folder = cache(&format!("to{position}"));
            fs::create_dir(&folder).unwrap();
            let target = folder.join("image");
            fs::copy(self.at("old"), &target).unwrap();
            let count = Arc::default();
            let proxy = proxy(self.server, self.fault, position, self.stays, &count);
            let client = self
                .server
                .client_by(proxy.port(), &prefix, &cache(&format!("b{position}")));
            let result = client.download("app", &target, &[]);
            drop(proxy);
            let is_over = count.load(Ordering::Relaxed) <= position;
            if is_over || (self.fault.passes() && !self.stays) {
                assert!(result.is_ok(), "{:?} at {position}: {result:?}", self.fault);
            }
            let wanted = if result.is_ok() { "new" } else { "old" };
            assert!(fs::read(&target).unwrap() == fs::read(self.at(wanted)).unwrap());
            direct.download("app", &target, &[]).unwrap();
            assert!(fs::read(&target).unwrap() == fs::read(self.at("new")).unwrap());
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
            if is_over {
                return;
            }
        }
    }

    /// Nothing that a name needs is damaged or missing.
    fn is_right(&self, prefix: &str) {
        let options = CheckOptions {
            repair: false,
            keys: &Seal::PLAIN,
            local: &[],
            threads: 2,
        };
        let client = self.server.client(prefix, &self.at(&format!("{prefix}-check")));
        let checked = client.store.check(&options).unwrap();
        assert!(
            checked.findings.is_empty() && checked.broken.is_empty(),
            "{prefix}: {checked:?}"
        );
    }
}

/// Two images that share a part.
fn images(dir: &Path) {
    let shared = content(1, 40);
    image(
        &dir.join("old"),
        &[Part::Data(&shared), Part::Data(&content(2, 8))],
    );
    image(
        &dir.join("new"),
        &[Part::Data(&shared), Part::Hole(5), Part::Data(&content(3, 12))],
    );
}

/// Each fault in a thread of its own: most of the time is waiting.
fn all(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    std::thread::scope(|scope| {
        for fault in FAULTS {
            let trial = Trial {
                server,
                fault,
                stays: false,
                dir: dir.path(),
            };
            scope.spawn(move || {
                // A client waits a second until it takes a server for stuck.
                let step = if fault == Fault::Stuck { 5 } else { 1 };
                trial.uploads(step);
                trial.downloads(step);
            });
        }
        for fault in [Fault::Lost, Fault::Failed, Fault::Busy, Fault::Damaged] {
            let trial = Trial {
                server,
                fault,
                stays: true,
                dir: dir.path(),
            };
            scope.spawn(move || {
                trial.uploads(3);
                trial.downloads(2);
            });
        }
    });
}

#[test]
fn faults_before_s3() {
    if let Some(server) = Server::seaweed() {
        all(&server);
    }
}

#[test]
fn faults_before_a_registry() {
    if let Some(server) = Server::registry() {
        all(&server);
    }
}
