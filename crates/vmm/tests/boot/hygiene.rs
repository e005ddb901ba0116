//! What a run leaves behind, however its owner ends: no process, no file.
//!
//! The runs are in a process of their own, which is this very program with [`CHILD`] in its environment, so that it can
//! be interrupted, killed, started as another user or without a network.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_protocol::agent::JobOptions;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::qemu::{Program, probe};
use firebrick_vmm::{BootSpec, RunOutcome, RunSpec, Streams, run};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

use crate::common;
use crate::host::{BOOT_LIMIT, host, shell};
use crate::images::{self, Image};

/// Set in the process that is to run a job: `RUN_SECONDS COMMAND`.
const CHILD: &str = "FIREBRICK_TEST_RUN";

/// A folder with all that a run needs, which any user may read, and one for what a run might leave.
struct Place {
    dir: tempfile::TempDir,
    image: Image,
    digest: Digest,
}

impl Place {
    fn new() -> Option<Place> {
        let image = images::any(json!({}))?;
        let host = host()?;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| dir.path().join(name);
        let all = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        };
        all(dir.path(), 0o755);
        std::fs::copy(&image.path, at("image")).expect("a copy");
        std::fs::write(at("guest"), &host.guest).expect("a copy");
        std::fs::copy(std::env::current_exe().expect("this program"), at("program")).expect("a copy");
        let kernel = at("kernel");
        std::fs::create_dir_all(kernel.join("modules")).expect("a folder");
        for file in common::listing(host.kernel.dir()).keys() {
            let from = host.kernel.dir().join(file);
            if from.is_file() {
                std::fs::copy(&from, kernel.join(file)).expect("a copy");
            }
        }
        std::fs::create_dir(at("tmp")).expect("a folder");
        all(&at("tmp"), 0o777);
        for file in ["image", "guest"] {
            all(&at(file), 0o444);
        }
        let digest = digest(&at("image"));
        Some(Place { dir, image, digest })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a run of `command` in the guest, by way of `wrapper` (a program and arguments, or nothing).
    fn start(&self, wrapper: &[&str], seconds: u64, command: &str) -> Running {
        let program = self.at("program");
        let mut words: Vec<&std::ffi::OsStr> = wrapper.iter().map(std::ffi::OsStr::new).collect();
        words.push(program.as_os_str());
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["--exact", "hygiene::child", "--nocapture"])
            .env(CHILD, format!("{seconds} {command}"))
            .env("TMPDIR", self.at("tmp"))
            .env("HOME", self.at("tmp"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, stdout }
    }

    /// Panics unless nothing is left but what was there before.
    fn is_clean(&self) {
        assert_eq!(common::listing(&self.at("tmp")), BTreeMap::new());
        let names: Vec<String> = std::fs::read_dir(self.dir.path())
            .expect("the folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(names.len(), 5, "{names:?}");
        assert_eq!(digest(&self.at("image")), self.digest, "the image has changed");
    }
}

fn digest(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).expect("the image"))
}

struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a line that ends with `wanted`.
    fn line(&mut self, wanted: &str) {
        let mut all = String::new();
        while !all.ends_with(&format!("{wanted}\n")) {
            if self.stdout.read_line(&mut all).expect("a line") == 0 {
                let mut stderr = String::new();
                let mut pipe = self.child.stderr.take().expect("a pipe");
                pipe.read_to_string(&mut stderr).expect("text");
                panic!("it ended without {wanted:?}:\n{all}\n{stderr}");
            }
        }
    }

    /// The QEMU that it has started, once it has.
    fn qemu(&self) -> i32 {
        let deadline = Instant::now() + BOOT_LIMIT;
        while Instant::now() < deadline {
            if let Some(&pid) = children(self.pid().as_raw_nonzero().get()).first() {
                return pid;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it has started no QEMU");
    }

    fn ends_within(mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                panic!("it still ran after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Processes named like QEMU whose parent is `parent`.
fn children(parent: i32) -> Vec<i32> {
    let stats = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let parent: i32 = rest.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent, name.contains("(qemu-system")))
    });
    stats
        .filter(|&(_, its_parent, is_qemu)| is_qemu && its_parent == parent)
        .map(|(pid, ..)| pid)
        .collect()
}

/// Panics unless the process is gone soon. One that nobody reaps is gone, too.
fn is_gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let runs = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
    };
    while runs() {
        assert!(Instant::now() < deadline, "QEMU {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Not a test of its own: what the others start. Exits as `firebrick run` does.
#[test]
#[expect(clippy::print_stderr, reason = "the parent shows it when the test fails")]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (seconds, command) = order.split_once(' ').expect("an order");
    let seconds = Duration::from_secs(seconds.parse().expect("seconds"));
    let interrupts = Interrupts::catch().expect("signals can be caught");
    let here = std::env::current_dir().expect("a folder");
    let kernel = Kernel::open(&here.join("kernel")).expect("the kernel");
    let guest = std::fs::read(here.join("guest")).expect("the guest");
    let program = Program::find(&std::env::var_os("PATH").expect("a PATH")).expect("QEMU");
    // A state folder that this user may not write, as a system's is.
    let (qemu, choice) = probe::best(&program, &kernel, Path::new("/proc/nowhere"), false).expect("QEMU");
    eprintln!("accelerator: {choice:?}");
    let mut boot = BootSpec::new(here.join("image"), &kernel, &guest);
    boot.answer_limit = BOOT_LIMIT;
    let spec = RunSpec {
        boot,
        job: shell(command),
        options: JobOptions::default(),
        timeout: Some(seconds),
        patience: Duration::from_secs(30),
        copy_in: Vec::new(),
        copy_out: Vec::new(),
    };
    let streams = Streams {
        stdin: None,
        stdout: &mut std::io::stdout(),
        stderr: &mut std::io::stderr(),
        terminal: None,
        starting: None,
        interrupts: Some(&interrupts),
        warn: None,
    };
    let code = match run(&qemu, &spec, streams) {
        Ok(RunOutcome::Exited { code } | RunOutcome::NotStarted { code, .. }) => code,
        Ok(RunOutcome::TimedOut { .. }) => 124,
        Ok(RunOutcome::Interrupted { signal }) => 128 + signal,
        Err(error) => {
            eprintln!("{}", common::chain(&error));
            125
        }
    };
    std::process::exit(code);
}

#[test]
fn interrupts_end_the_job_and_leave_nothing() {
    let Some(place) = Place::new() else { return };
    // Ctrl-C on a terminal reaches the whole foreground process group, of which QEMU must be no part.
    let mut running = place.start(&[], 300, "echo up; sleep 600");
    running.line("up");
    let qemu = running.qemu();
    kill_process_group(running.pid(), Signal::INT).expect("it is there");
    assert_eq!(running.ends_within(Duration::from_secs(40)).code(), Some(130));
    is_gone(qemu);

    // The job hears of it and may end in its own way.
    let mut running = place.start(
        &[],
        300,
        "trap 'echo heard; exit 9' TERM; echo up; while :; do sleep 0.1; done",
    );
    running.line("up");
    kill_process(running.pid(), Signal::TERM).expect("it is there");
    running.line("heard");
    assert_eq!(running.ends_within(Duration::from_secs(40)).code(), Some(9));
    is_gone(qemu);

    // One that does not listen is given up at the second signal.
    let mut running = place.start(&[], 300, "trap '' INT; echo up; while :; do sleep 0.1; done");
    running.line("up");
    let qemu = running.qemu();
    kill_process(running.pid(), Signal::INT).expect("it is there");
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        children(running.pid().as_raw_nonzero().get()).contains(&qemu),
        "patience was short"
    );
    kill_process(running.pid(), Signal::INT).expect("it is there");
    assert_eq!(running.ends_within(Duration::from_secs(10)).code(), Some(130));
    is_gone(qemu);
    place.is_clean();
}

#[test]
fn a_signal_while_booting_ends_the_boot() {
    let Some(place) = Place::new() else { return };
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let running = place.start(&[], 300, "true");
        let qemu = running.qemu();
        std::thread::sleep(Duration::from_millis(100));
        kill_process(running.pid(), signal).expect("it is there");
        let status = running.ends_within(Duration::from_secs(10));
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
        is_gone(qemu);
    }
    place.is_clean();
}

#[test]
fn kill_9_takes_qemu_along() {
    let Some(place) = Place::new() else { return };
    let running = place.start(&[], 300, "true");
    let qemu = running.qemu();
    kill_process(running.pid(), Signal::KILL).expect("it is there");
    assert_eq!(running.ends_within(Duration::from_secs(10)).signal(), Some(9));
    is_gone(qemu);

    let mut running = place.start(&[], 300, "echo up; sleep 600");
    running.line("up");
    let qemu = running.qemu();
    kill_process(running.pid(), Signal::KILL).expect("it is there");
    assert_eq!(running.ends_within(Duration::from_secs(10)).signal(), Some(9));
    is_gone(qemu);
    place.is_clean();
}

#[test]
fn time_limits_leave_nothing() {
    let Some(place) = Place::new() else { return };
    let mut running = place.start(&[], 1, "echo up; sleep 600");
    running.line("up");
    let qemu = running.qemu();
    assert_eq!(running.ends_within(Duration::from_secs(40)).code(), Some(124));
    is_gone(qemu);
    place.is_clean();

    let host = host().expect("it was there before");
    let mut spec = host.spec(&place.image.path);
    spec.answer_limit = Duration::from_millis(200);
    let error = firebrick_vmm::boot(&host.qemu, &spec, None).expect_err("no boot is that quick");
    assert!(
        error
            .to_string()
            .starts_with("the guest did not answer within 0.2 s"),
        "{error}"
    );
}

#[test]
fn any_user_may_run_and_no_network_is_needed() {
    let Some(place) = Place::new() else { return };
    let mut wrappers: Vec<&[&str]> = vec![&["unshare", "--map-root-user", "--net"]];
    if rustix::process::geteuid().is_root() {
        wrappers.push(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    for wrapper in wrappers {
        let mut running = place.start(wrapper, 300, "echo up; exit 6");
        running.line("up");
        let status = running.ends_within(Duration::from_secs(40));
        assert_eq!(status.code(), Some(6), "{wrapper:?}");
        place.is_clean();
    }
}

#[test]
fn machines_share_an_image_and_nothing_else() {
    let Some(image) = images::any(json!({})) else {
        return;
    };
    let Some(host) = host() else { return };
    let before = digest(&image.path);
    std::thread::scope(|scope| {
        let runs = [11, 12, 13].map(|code| {
            let (host, image) = (&host, &image);
            let command =
                format!("test ! -e /etc/own && echo {code} > /etc/own && sleep 3 && exit $(cat /etc/own)");
            scope.spawn(move || host.run(&image.path, shell(&command), BOOT_LIMIT).outcome)
        });
        for (run, code) in runs.into_iter().zip([11, 12, 13]) {
            assert_eq!(run.join().expect("no panic"), RunOutcome::Exited { code });
        }
    });
    assert_eq!(digest(&image.path), before, "the image has changed");
}
