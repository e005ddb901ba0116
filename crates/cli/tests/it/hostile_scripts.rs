//! Hostile scripts by the whole way of the command line: as whoever runs the tests, and where that is root, as a user with ranges
//! of ids, as one without, and in `unshare -r`. The host stays as it was, and nothing stays of them. What exactly is refused
//! is tested in `crates/sandbox`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use firebrick_testkit::fixtures;

use crate::support::folder::names_in;

/// Mounts, device nodes, links to the host, set-id programs.
const REACH: &str = r#"
for try in "mount -t tmpfs none /mnt" "mount --bind / /mnt" "mknod /tmp/disk b 8 0" "chroot /proc/1/root true"; do
    if $try; then echo "it could: $try"; exit 9; fi
done
ln -s "$CANARY" /srv/out
if echo evil > /srv/out/file; then exit 9; fi
mkdir -p "$CANARY" && echo evil > /srv/out/file
cp /bin/busybox /srv/root && chmod 4755 /srv/root
if /srv/root mount -t tmpfs none /mnt; then exit 9; fi
"#;

/// Everybody that it may signal, and more processes than it may have.
const BOMB: &str = "bomb() { bomb | bomb & }\nbomb 7655 2>/dev/null\nsleep 1\nkill -9 -1\nexit 3\n";

/// Files that firebrick's caller had open.
const DESCRIPTORS: &str = r#"
for fd in 3 4 5 6 7 8 9; do
    if (echo evil >&$fd) 2>/dev/null; then echo "it could: $fd"; exit 9; fi
done
ls -l /proc/self/fd | grep -q canary && exit 9
echo $$ > /etc/pid
"#;

/// Somebody who runs firebrick.
struct Caller {
    name: &'static str,
    wrap: Vec<String>,
}

fn callers() -> Vec<Caller> {
    let caller = |name, wrap: &[&str]| Caller {
        name,
        wrap: wrap.iter().map(|&word| word.to_owned()).collect(),
    };
    let mut all = vec![
        caller("as we are", &["env"]),
        caller("unshare -r", &["unshare", "-r", "--"]),
    ];
    if !rustix::process::geteuid().is_root() {
        return all;
    }
    let become_user =
        |uid: &str| ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--"].map(str::to_owned);
    all.push(Caller {
        name: "a user without ranges",
        wrap: become_user("54321").to_vec(),
    });
    if let Some(uid) = user_with_ranges() {
        all.push(Caller {
            name: "a user with ranges",
            wrap: become_user(&uid).to_vec(),
        });
    }
    all
}

/// A user of this machine who has ranges in `/etc/subuid` and `/etc/subgid`, by number.
fn user_with_ranges() -> Option<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid, passwd) = (read("/etc/subuid"), read("/etc/subgid"), read("/etc/passwd"));
    let names = subuid.lines().filter_map(|line| line.split_once(':'));
    names.into_iter().find_map(|(name, _)| {
        let own = |line: &&str| line.starts_with(&format!("{name}:"));
        subgid.lines().find(own)?;
        let line = passwd.lines().find(own)?;
        line.split(':').nth(2).map(str::to_owned)
    })
}

/// A folder that everybody may use, with the program, Alpine and files of the host in it.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Option<Lab> {
        let alpine = fixtures::fixture(fixtures::ALPINE[1])?;
        let folder = tempfile::tempdir().expect("a folder");
        let lab = Lab { folder };
        fs::copy(assert_cmd::cargo::cargo_bin("firebrick"), lab.at("firebrick")).expect("a copy");
        fs::copy(alpine, lab.at("alpine.tar.gz")).expect("a copy");
        fs::create_dir(lab.at("canary")).expect("a folder");
        fs::write(lab.at("canary/file"), "the host's\n").expect("a file");
        for (path, mode) in [
            (".", 0o755),
            ("canary", 0o777),
            ("canary/file", 0o666),
            ("alpine.tar.gz", 0o644),
        ] {
            fs::set_permissions(lab.at(path), fs::Permissions::from_mode(mode)).expect("a mode");
        }
        Some(lab)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Runs a script as this caller, whose home is new, and who has the host's file open. What it said, and its home.
    fn run(&self, caller: &Caller, script: &str, more: &[&str]) -> (Output, PathBuf) {
        let home = self.at("home");
        _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).expect("a folder");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("a mode");
        let canary = self.at("canary");
        let script = script.replace("$CANARY", canary.to_str().expect("text"));
        fs::write(home.join("script"), script).expect("a script");
        let line = "exec 7>>\"$0/file\" 8<\"$0\" && exec \"$@\"";
        let output = Command::new("sh")
            .args(["-c", line])
            .arg(&canary)
            .args(&caller.wrap)
            .arg(self.at("firebrick"))
            .args(["-v", "rootfs", "from-docker", "-n", "x", "-i"])
            .arg(format!("tar:{}", self.at("alpine.tar.gz").display()))
            .args(["--script", "script"])
            .args(more)
            .current_dir(&home)
            .env("FIREBRICK_HOME", home.join("fb"))
            .output()
            .expect("it starts");
        (output, home)
    }

    /// The host's files are as they were, and nothing is mounted or running that was not.
    fn check(&self, home: &Path, about: &str) {
        assert_eq!(names_in(&self.at("canary")), ["file"], "{about}");
        let file = fs::read_to_string(self.at("canary/file")).expect("the file");
        assert_eq!(file, "the host's\n", "{about}");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
        assert!(
            !mounts.contains(self.folder.path().to_str().expect("text")),
            "{about}"
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        while !left(home).is_empty() {
            assert!(Instant::now() < deadline, "{about}: {:?}", left(home));
            std::thread::sleep(Duration::from_millis(50)); // the keeper goes by itself
        }
    }
}

/// What is left of a sandbox: folders, and processes.
fn left(home: &Path) -> Vec<String> {
    let mut found: Vec<String> = names_in(&home.join("fb/cache/sandbox"))
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("7655") {
            found.push(command);
        }
    }
    found
}

#[test]
fn hostile_scripts_leave_the_host_as_it_was() {
    let Some(lab) = Lab::new() else { return };
    for caller in callers() {
        for (name, script, more, good) in [
            ("reach", REACH, &[][..], true),
            ("descriptors", DESCRIPTORS, &[], true),
            (
                "bomb",
                BOMB,
                &["--step-processes", "200", "--step-timeout", "60"],
                false,
            ),
        ] {
            let about = format!("{name}, {}", caller.name);
            let (output, home) = lab.run(&caller, script, more);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), good, "{about}: {said}");
            assert!(
                good || said.contains("error: the script script "),
                "{about}: {said}"
            );
            lab.check(&home, &about);
            assert_eq!(home.join("fb/images/rootfs-x.ext4").exists(), good, "{about}");
        }
    }
}
