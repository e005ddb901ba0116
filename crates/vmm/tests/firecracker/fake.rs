//! The fake Firecracker, its folder, and what it has been asked.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebrick_testkit::fixtures::{FIRECRACKER_API, fixture};
use firebrick_vmm::client::Client;
use firebrick_vmm::firecracker::{Firecracker, Jail, Program};
use firebrick_vmm::{Drive, Machine, MachineSpec, Port, Vsock};
use serde_json::Value;

use crate::common;

/// Longer than anything takes on the busiest machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a fake Firecracker, and all that a machine needs.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
}

/// `None` only where tests were told to do without programs of the host.
pub(crate) fn fake(mode: &str) -> Option<Fake> {
    if common::skips_oracles() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let fake = Fake { dir };
    let script = format!(
        "#!/bin/sh\nexport FAKE_LOG='{}' FAKE_MODE='{mode}' FAKE_FULL_API='{}'\nexec '{}' \"$@\"\n",
        fake.at("log").display(),
        full_api().unwrap_or_default().display(),
        here().join("fake-firecracker").display(),
    );
    std::fs::write(fake.at("firecracker"), script).expect("a script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(fake.at("firecracker"), mode).expect("a mode");
    std::fs::write(fake.at("vmlinux"), common::tiny_elf_kernel()).expect("a kernel");
    std::fs::write(fake.at("image"), "an image").expect("an image");
    std::fs::write(fake.at("data"), "a disk").expect("a disk");
    Some(fake)
}

/// This folder.
pub(crate) fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firecracker")
}

/// The whole description of the API, where it is at hand.
pub(crate) fn full_api() -> Option<PathBuf> {
    std::fs::canonicalize(fixture(FIRECRACKER_API)?).ok()
}

impl Fake {
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn vmm(&self) -> Firecracker {
        Firecracker::new(Program::at(self.at("firecracker")), self.at("run"))
    }

    /// The same in jails of the fake jailer.
    pub(crate) fn jailed(&self) -> Firecracker {
        self.vmm().with_jail(self.jail())
    }

    /// A jail of another user, to whom the disk that is written belongs; of this very user, if that is not root.
    pub(crate) fn jail(&self) -> Jail {
        let (uid, gid) = match rustix::process::getuid() {
            user if user.is_root() => (1234, 1235),
            user => (user.as_raw(), rustix::process::getgid().as_raw()),
        };
        std::os::unix::fs::chown(self.at("data"), Some(uid), Some(gid)).expect("it is ours to give");
        Jail {
            jailer: here().join("fake-jailer"),
            uid,
            gid,
            base: self.at("jail"),
            copies: false,
        }
    }

    /// A machine with everything.
    pub(crate) fn spec(&self) -> MachineSpec {
        let drive = |name, read_only| Drive {
            path: self.at(name),
            read_only,
        };
        MachineSpec {
            kernel: self.at("vmlinux"),
            initramfs: Some(b"an initramfs".to_vec()),
            append: "root=/dev/vda".to_owned(),
            drives: vec![drive("image", true), drive("data", false)],
            memory_mib: 256,
            vcpus: 2,
            vsock: Vsock::Host,
            ..MachineSpec::default()
        }
    }

    /// What was asked, in order, and the agent in it.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.at("log")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The requests as `METHOD path status`.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log().into_iter().filter(|entry| entry["path"].is_string());
        entries
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().expect("text").to_owned();
                format!("{} {} {}", text("method"), text("path"), entry["status"])
            })
            .collect()
    }

    /// The bytes of a file that somebody has locked, as the kernel tells them: the kind, the first and the last.
    pub(crate) fn locks_of(&self, name: &str) -> Vec<String> {
        let inode = std::fs::metadata(self.at(name)).expect("a file").ino();
        let text = std::fs::read_to_string("/proc/locks").expect("/proc is mounted");
        let of_it = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, kind, _, how, _, file, rest @ ..] = words.as_slice() else {
                return None;
            };
            file.ends_with(&format!(":{inode}"))
                .then(|| format!("{kind} {how} {}", rest.join(" ")))
        });
        let mut all: Vec<String> = of_it.collect();
        all.sort_unstable();
        all
    }

    /// Panics if a machine has left something: files, or processes.
    pub(crate) fn is_clean(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // The guard of a jail is not waited for.
        while !self.processes().is_empty() {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(common::listing(&self.at("run")).len(), 0);
        let left: Vec<String> = common::listing(&self.at("jail"))
            .into_keys()
            .filter(|path| path != "firecracker")
            .collect();
        assert_eq!(left, [""; 0]);
    }
}

impl Fake {
    /// The command lines of processes that began as the fake, or name its folder.
    fn processes(&self) -> Vec<String> {
        self.with_numbers()
            .into_iter()
            .map(|(_, command)| command)
            .collect()
    }

    /// The numbers of those that stand in for Firecracker.
    pub(crate) fn firecrackers(&self) -> Vec<i32> {
        let all = self.with_numbers().into_iter();
        all.filter(|(_, command)| command.contains("fake-firecracker"))
            .map(|(number, _)| number)
            .collect()
    }

    fn with_numbers(&self) -> Vec<(i32, String)> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let command_of = |process: PathBuf| {
            let read = |name| std::fs::read(process.join(name)).unwrap_or_default();
            let (environ, command) = (read("environ"), read("cmdline"));
            let text = [environ, command.clone()].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            // This process may have been given the folder, too.
            let is_other = !process.ends_with(std::process::id().to_string());
            let number = process.file_name()?.to_str()?.parse().ok()?;
            (is_other && !command.is_empty() && text.iter().any(|text| text.contains(&dir)))
                .then_some((number, command))
        };
        let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
        entries
            .filter_map(|entry| command_of(entry.ok()?.path()))
            .collect()
    }
}

/// A connection to the agent.
pub(crate) fn agent(machine: &dyn Machine) -> Client {
    let stream = machine.dial(Port::AGENT, LIMIT).expect("the agent listens");
    Client::new(stream).expect("a client")
}

/// Waits until the console says so.
pub(crate) fn console_says(machine: &dyn Machine, wanted: &str) -> String {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let console = String::from_utf8_lossy(&machine.console()).into_owned();
        if console.contains(wanted) {
            return console;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "no {wanted:?} in {console:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
