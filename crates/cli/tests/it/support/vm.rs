//! A state folder of a test's own that can boot VMs: a busybox image in it, and the kernel that all tests share.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firebrick_testkit::oracle;

use super::processes;

/// Longer than anything takes on the busiest machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// A state folder; gone when this is dropped.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// `None` where the person who runs the tests asked to leave real VMs out.
    pub(crate) fn new() -> Option<Home> {
        let tools = ["qemu-system-x86_64", "busybox", "vhost-device-vsock"];
        let have = |tool: &&str| oracle::have(tool).expect("what the tests need");
        if !tools.iter().all(have) {
            return None;
        }
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-state");
        fs::create_dir_all(&shared).expect("a folder");
        let lock = fs::File::create(shared.join("lock")).expect("a file");
        lock.lock().expect("a lock");
        if !shared.join("kernels").is_dir() {
            let setup = firebrick(&shared, &["setup"])
                .output()
                .expect("the binary starts");
            assert!(
                setup.status.success(),
                "{}",
                String::from_utf8_lossy(&setup.stderr)
            );
        }
        drop(lock);
        let home = Home {
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::create_dir(home.path()).expect("a folder");
        symlink(shared.join("kernels"), home.path().join("kernels")).expect("a link");
        let _ = fs::copy(shared.join("host.json"), home.path().join("host.json"));
        home.make_image();
        Some(home)
    }

    /// The state folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A path beside it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn firebrick(&self, args: &[&str]) -> Command {
        firebrick(&self.path(), args)
    }

    /// Exit code, stdout and stderr.
    pub(crate) fn output(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self
            .firebrick(args)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the binary starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// The image `busybox`.
    pub(crate) fn make_image(&self) {
        let root = self.at("root");
        let bin = root.join("bin");
        if !bin.exists() {
            fs::create_dir_all(&bin).expect("a folder");
            fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
            for applet in ["sh", "cat", "sleep", "echo", "stty", "date", "sync", "hostname"] {
                symlink("busybox", bin.join(applet)).expect("a link");
            }
        }
        let reference = format!("dir:{}", root.display());
        let made = self.output(&["rootfs", "from-docker", "-q", "-n", "busybox", "-i", &reference]);
        assert_eq!(made.0, Some(0), "{}", made.2);
    }

    /// Processes that have this state folder in their environment, as command lines.
    pub(crate) fn processes(&self) -> Vec<String> {
        processes::with_variable(&format!("FIREBRICK_HOME={}", self.path().display()))
    }

    /// No process of this state folder stays.
    pub(crate) fn no_process_is_left(&self) {
        eventually(Duration::from_secs(20), || self.processes().is_empty());
    }
}

/// Waits until it is so.
pub(crate) fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn firebrick(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("firebrick"));
    command.args(args).env("FIREBRICK_HOME", home);
    command
}
