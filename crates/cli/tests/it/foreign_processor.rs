//! `rootfs create --platform` for another processor: refused where its programs do not run, and what the tools are told where they do.
//!
//! A handler of `binfmt_misc` is set in a user namespace of the test's own, which Linux has since 6.7, so the host stays as it is. It
//! only writes down what it was to run: that QEMU's runs it is QEMU's affair.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use firebrick_testkit::fixtures::fixture;
use firebrick_testkit::oracle::{Image, leave_out};
use firebrick_testkit::server::Server;

use crate::support::folder::names_in;

/// Whose programs `binfmt_misc` gives to the handler: those of 64-bit ARM.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// Writes its words into `log` beside where it was compiled for, one line.
const HANDLER: &str = r#"
#include <stdio.h>
int main(int argc, char **argv) {
    FILE *log = fopen(LOG, "a");
    if (log) {
        for (int i = 1; i < argc; i++) fprintf(log, "%s ", argv[i]);
        fputc('\n', log);
        fclose(log);
    }
    return 0;
}
"#;

/// In place of `mmdebstrap`: writes down what it is told, and a system of one file.
const MMDEBSTRAP: &str =
    "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/told\"\n[ \"$1\" = --version ] || tar -C /etc -c passwd\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { folder };
        for name in ["tmp", "bin", "fb"] {
            fs::create_dir(place.at(name)).expect("a folder");
            fs::set_permissions(place.at(name), fs::Permissions::from_mode(0o1777)).expect("a mode");
        }
        fs::set_permissions(place.at("."), fs::Permissions::from_mode(0o1777)).expect("a mode");
        // Another user's program must not be where they cannot look.
        fs::copy(assert_cmd::cargo::cargo_bin("firebrick"), place.at("firebrick")).expect("a copy");
        let fake = place.at("bin/mmdebstrap");
        fs::write(&fake, MMDEBSTRAP).expect("a file");
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("a mode");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// `rootfs create` with these words, started by `wrap`.
    fn create(&self, wrap: &[String], words: &[&str]) -> Output {
        let path = std::env::var("PATH").expect("a PATH");
        let (first, rest) = wrap.split_first().expect("a program");
        Command::new(first)
            .args(rest)
            .arg(self.at("firebrick"))
            .args([
                "rootfs",
                "create",
                "-n",
                "set",
                "--platform",
                "linux/arm64",
                "--agent",
                "none",
                "--init",
                "none",
            ])
            .args(words)
            .env_clear()
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.at("tmp"))
            .env("FIREBRICK_HOME", self.at("fb"))
            .env("SOURCE_DATE_EPOCH", "1735689600")
            .current_dir("/")
            .output()
            .expect("it starts")
    }

    fn created(&self, wrap: &[String], words: &[&str]) {
        let output = self.create(wrap, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        Image::check(&self.at("fb/images/rootfs-set.ext4")).expect("a sound image");
        assert_eq!(fs::read_dir(self.at("tmp")).expect("a folder").count(), 0);
    }
}

fn runs_arm64() -> bool {
    cfg!(target_arch = "aarch64") || Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
}

const ALPINE: [&str; 4] = ["-b", "alpine", "--suite", "v3.20"];

#[test]
fn without_a_handler_nothing_begins() {
    if runs_arm64() {
        leave_out("a host that runs no programs of 64-bit ARM (this one does)");
        return;
    }
    let place = Place::new();
    let us = ["env".to_owned()];
    // Nobody is asked for anything: the mirror is one that never answers, and the tool a false one.
    let debian = ["-p", "jq", "--mirror", "http://192.0.2.1/debian"];
    let alpine = [&ALPINE[..], &["-p", "jq", "--mirror", "http://192.0.2.1/alpine"]].concat();
    for words in [&debian[..], &alpine] {
        let output = place.create(&us, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(
                "caused by: packages for linux/arm64 have scripts that run while they are installed, which this host cannot: it has \
                 another processor, and binfmt_misc has no handler for them\n"
            ) && said.contains(
                "hint: let this host run such programs: apt-get install qemu-user-static binfmt-support; or make the image on a machine \
                 for linux/arm64\n"
            ),
            "{said}"
        );
        assert_eq!(
            (
                place.text("bin/told").as_str(),
                names_in(&place.at("fb/images")).is_empty()
            ),
            ("", true)
        );
        assert_eq!(fs::read_dir(place.at("tmp")).expect("a folder").count(), 0);
    }
    // The base system alone has nothing to run.
    if let Some(minirootfs) = fixture("alpine/alpine-minirootfs-3.20.3-aarch64.tar.gz") {
        let minirootfs = minirootfs.display().to_string();
        place.created(&us, &[&ALPINE[..], &["--minirootfs", &minirootfs]].concat());
    }
}

/// What starts a program with our handler set, as a user with ranges of ids, who is root of a namespace with them.
fn with_handler(place: &Place, flags: &str) -> Option<Vec<String>> {
    if !rustix::process::geteuid().is_root() || runs_arm64() {
        leave_out(
            "a handler of the test's own (only root can become a user with ranges, and there must be none)",
        );
        return None;
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, passwd) = (read("/etc/subuid"), read("/etc/passwd"));
    let name = subuid.lines().find_map(|line| line.split_once(':'));
    let uid = name.and_then(|(name, _)| {
        let line = passwd
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))?;
        line.split(':').nth(2)
    });
    let Some(uid) = uid else {
        leave_out("a handler of the test's own (no user has ranges in /etc/subuid)");
        return None;
    };
    fs::write(place.at("handler.c"), HANDLER).expect("a file");
    let compiled = Command::new("cc")
        .args(["-static", "-o"])
        .arg(place.at("handler"))
        .arg(format!("-DLOG=\"{}\"", place.at("log").display()))
        .arg(place.at("handler.c"))
        .status();
    assert!(compiled.expect("a C compiler").success());
    let line = format!(
        ":firebrick:M::{MAGIC}:{MASK}:{}:{flags}",
        place.at("handler").display()
    );
    let set = format!(
        "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && printf %s '{line}' > /proc/sys/fs/binfmt_misc/register && exec \"$@\""
    );
    let setpriv = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--"];
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--map-auto",
        "--mount",
        "--",
        "sh",
        "-c",
        &set,
        "sh",
    ];
    let wrap: Vec<String> = [&setpriv[..], &unshare]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let tried = wrap
        .split_first()
        .map(|(first, rest)| Command::new(first).args(rest).arg("true").status());
    if !tried.is_some_and(|status| status.is_ok_and(|status| status.success())) {
        leave_out("a handler of the test's own (this Linux lets no user namespace have one)");
        return None;
    }
    Some(wrap)
}

#[test]
fn with_a_handler_the_tools_are_told_for_whom() {
    let place = Place::new();
    let Some(wrap) = with_handler(&place, "F") else {
        return;
    };
    place.created(&wrap, &["-p", "jq", "--mirror", "http://mirror.example/debian"]);
    let told = place.text("bin/told");
    // Some of its words have lines of their own.
    let (_, last) = told.rsplit_once("--mode=").expect("it was told what to install");
    assert!(
        last.contains(" --architectures=arm64 ")
            && last.contains(" --skip=check/qemu ")
            && last.contains(" --include=apt,jq ")
            && last.contains(" deb "),
        "{told}"
    );
    // The probe, here and in a root of its own.
    assert_eq!(place.text("log").lines().count(), 1, "{}", place.text("log"));

    let (Some(minirootfs), Some(repository)) = (
        fixture("alpine/alpine-minirootfs-3.20.3-aarch64.tar.gz"),
        fixture("apk/repository"),
    ) else {
        return;
    };
    fs::copy(minirootfs, place.at("minirootfs")).expect("a copy");
    fs::copy(repository.join("melange.rsa.pub"), place.at("melange.rsa.pub")).expect("a copy");
    let server = Server::of(&repository).expect("a server");
    let (url, minirootfs, keys) = (server.url(), place.at("minirootfs"), place.at("."));
    let more = [
        "-p",
        "replayout",
        "--mirror",
        &url,
        "--minirootfs",
        minirootfs.to_str().expect("text"),
    ];
    place.created(
        &wrap,
        &[&ALPINE[..], &more, &["--keys", keys.to_str().expect("text")]].concat(),
    );
    let log = place.text("log");
    let apk = log.lines().last().unwrap_or_default();
    assert!(
        apk.contains("/tools/lib/ld-musl-aarch64.so.1 --library-path ")
            && apk.contains("/tools/sbin/apk --root ")
            && apk.contains(" --arch aarch64 --keys-dir ")
            && apk.ends_with(" add -- replayout "),
        "{log}"
    );
    let keys = Command::new(place.at("firebrick"))
        .args(["rootfs", "ls", "set", "/etc/apk/keys"])
        .env("FIREBRICK_HOME", place.at("fb"))
        .output()
        .expect("it starts");
    let keys = String::from_utf8_lossy(&keys.stdout).into_owned();
    assert!(keys.contains("melange.rsa.pub"), "{keys}");
}

/// Such a handler starts programs here, but none of those in the new root.
#[test]
fn a_handler_for_this_root_only_is_refused() {
    let place = Place::new();
    let Some(wrap) = with_handler(&place, "") else {
        return;
    };
    let output = place.create(&wrap, &["-p", "jq", "--mirror", "http://192.0.2.1/debian"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1)
            && said.contains("works in this host's own root only (it lacks the flag F)"),
        "{said}"
    );
    assert_eq!(place.text("bin/told"), "");
}
