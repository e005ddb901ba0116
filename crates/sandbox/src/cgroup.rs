//! A control group for a sandbox, where the caller may make one: it bounds how many processes there are, whoever they belong to.
//!
//! ```text
//! own group of the caller          cgroup.procs: firebrick, and who started it
//! └─ firebrick-PID-N               cgroup.procs: the keeper and all that it starts; pids.max
//! ```
//!
//! It is made below the caller's own, never beside it, so all that bounds the caller bounds the sandbox too. In version 2 a group that
//! has processes may have no groups with controllers below it, except *threaded* ones, and `pids` is a controller that those can have.
//! What cannot be had is no error: other bounds stay, and `docs/sandbox.md` says which.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;

/// What the names of our groups start with.
const PREFIX: &str = "firebrick-";

/// Makes names unique among those of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group with one sandbox in it. It goes with this.
#[derive(Debug)]
pub(crate) struct Group {
    own: PathBuf,
    folder: PathBuf,
    /// We gave the groups below the caller's own the controller.
    enabled: bool,
}

impl Group {
    /// A group below the caller's own, with this process in it; `None` where the caller may not.
    pub(crate) fn with(process: u32) -> Option<Group> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (version, own) = own(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))?;
        Group::below(&own, version, process).ok()
    }

    fn below(own: &Path, version: Version, process: u32) -> io::Result<Group> {
        // Until the process is in it, nobody else takes it for one that is left over.
        let lock = lock(own)?;
        for entry in fs::read_dir(own)?.flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes())
            {
                _ = fs::remove_dir(entry.path()); // one that has processes stays
            }
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = own.join(format!("{PREFIX}{}-{count}", std::process::id()));
        fs::create_dir(&folder)?;
        let mut group = Group {
            own: own.to_owned(),
            folder,
            enabled: false,
        };
        let made = group.prepare(version).and_then(|()| {
            let process = process.to_string();
            write(&group.folder, "cgroup.procs", &process)
        });
        drop(lock); // which removing it takes
        made.map(|()| group)
    }

    /// Sees that it has `pids.max`.
    fn prepare(&mut self, version: Version) -> io::Result<()> {
        let has_limit = |group: &Group| group.folder.join("pids.max").exists();
        let kind = fs::read_to_string(self.folder.join("cgroup.type")).unwrap_or_default();
        if version == Version::Two && (!has_limit(self) || kind.trim() == "domain invalid") {
            // Only the hierarchy's root has no type, and may have processes and groups of any kind.
            if self.own.join("cgroup.type").exists() {
                write(&self.folder, "cgroup.type", "threaded")?;
            }
            if !has_limit(self) {
                write(&self.own, "cgroup.subtree_control", "+pids")?;
                self.enabled = true;
            }
        }
        match has_limit(self) {
            true => Ok(()),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// From now on a step has at most so many processes and threads. The keeper is one more.
    pub(crate) fn limit(&self, processes: u64) -> io::Result<()> {
        write(&self.folder, "pids.max", &processes.saturating_add(1).to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process has ended, but its group may hear of it a moment later.
        for _ in 0..50 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
        if !self.enabled {
            return;
        }
        let Ok(_lock) = lock(&self.own) else { return };
        let is_folder = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        // Others may rely on it by now.
        if fs::read_dir(&self.own).is_ok_and(|entries| !entries.flatten().any(is_folder)) {
            _ = write(&self.own, "cgroup.subtree_control", "-pids");
        }
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Files of groups are there or not; none can be made.
fn write(folder: &Path, file: &str, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(folder.join(file))?;
    file.write_all(text.as_bytes())
}

/// The caller's own group in the hierarchy that counts processes, by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn own(groups: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let group = |version| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = match version {
                Version::One => controllers.split(',').any(|name| name == "pids"),
                Version::Two => controllers.is_empty(),
            };
            is_it.then_some(path)
        })
    };
    let (version, path) = match group(Version::One) {
        Some(path) => (Version::One, path),
        None => (Version::Two, group(Version::Two)?),
    };
    mounts.lines().find_map(|line| {
        // `36 35 0:30 ROOT POINT OPTIONS [TAGS…] - KIND SOURCE OPTIONS`
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|name| name == "pids"),
            Version::Two => kind == "cgroup2",
        };
        let below = match root {
            "/" => path,
            root => path.strip_prefix(root)?,
        };
        // Escaped, or out of the namespace: not for us.
        let is_plain = !line.contains('\\') && !below.split('/').any(|part| part == "..");
        (is_it && is_plain && (below.is_empty() || below.starts_with('/')))
            .then(|| (version, Path::new(point).join(below.trim_start_matches('/'))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                          31 29 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                          32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_callers_own_group_is_found() {
        let found =
            |groups, mounts| own(groups, mounts).map(|(version, path)| (version, path.display().to_string()));
        let two = |path: &str| Some((Version::Two, path.to_owned()));
        assert_eq!(
            found("0::/user.slice/user-1000.slice/session-3.scope\n", UNIFIED),
            two("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope")
        );
        assert_eq!(found("0::/\n", UNIFIED), two("/sys/fs/cgroup/"));
        assert_eq!(
            found("9:name=systemd:/a\n8:cpu,pids:/a:b\n0::/c\n", HYBRID),
            Some((Version::One, "/sys/fs/cgroup/pids/a:b".to_owned()))
        );
        // A container that sees its own part of the hierarchy only.
        let part = UNIFIED.replace(" / /sys", " /docker/abc /sys");
        assert_eq!(found("0::/docker/abc/x\n", &part), two("/sys/fs/cgroup/x"));
        for (groups, mounts) in [
            ("0::/docker/abcd\n", part.as_str()),
            ("0::/elsewhere\n", part.as_str()),
            ("0::/../outside\n", UNIFIED),
            ("8:pids:/\n", UNIFIED),
            ("0::/\n", ""),
            ("", UNIFIED),
            ("0::/\n", "25 1 0:22 / /a\\040b rw - cgroup2 cgroup2 rw\n"),
        ] {
            assert_eq!(found(groups, mounts), None, "{groups} {mounts}");
        }
    }

    #[test]
    fn a_folder_that_is_no_group_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for version in [Version::One, Version::Two] {
            for file in ["", "cgroup.subtree_control", "cgroup.type"] {
                if !file.is_empty() {
                    fs::write(folder.path().join(file), "").unwrap();
                }
                assert!(Group::below(folder.path(), version, std::process::id()).is_err());
            }
            let folders = fs::read_dir(folder.path()).unwrap().flatten();
            assert_eq!(folders.filter(|entry| entry.path().is_dir()).count(), 0);
        }
    }

    /// Needs a hierarchy that we may write to; the tests in `tests/` say where there is one.
    #[test]
    fn a_group_bounds_who_is_in_it() {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "read line; sleep 0 & sleep 0 & sleep 0 & sleep 0 & wait; echo done",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let Some(group) = Group::with(child.id()) else {
            _ = child.kill();
            _ = child.wait();
            return;
        };
        // The shell itself is the one more.
        group.limit(1).unwrap();
        let (folder, own) = (group.folder.clone(), group.own.clone());
        // Another's comes and goes without disturbing it.
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let others = Group::with(other.id()).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        drop(others);
        assert_eq!(fs::read_to_string(folder.join("pids.max")).unwrap(), "2\n");
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("fork"), "{said}");
        drop(group);
        assert!(own.exists() && !folder.exists());
    }
}
