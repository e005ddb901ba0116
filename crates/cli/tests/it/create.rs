//! `rootfs create` with the command itself: an archive in Ubuntu's shape and Alpine's packages become images, judged by e2fsck, by
//! the package managers' own databases and by a boot; made by root and by somebody else; refused; interrupted.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use firebrick_testkit::fixtures::fixture;
use firebrick_testkit::oracle::{self, Image, leave_out};
use firebrick_testkit::server::{Server, ubuntu_archive};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::folder::names_in;
use crate::support::{processes, vm};

const MINIROOTFS: &str = "alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz";

/// A mirror of Alpine 3.20 with the packages of the fixtures, where everybody may read it, and the flags that name it.
struct Alpine {
    folder: tempfile::TempDir,
    server: Server,
}

impl Alpine {
    fn new() -> Option<Alpine> {
        let (repository, minirootfs) = (fixture("apk/repository")?, fixture(MINIROOTFS)?);
        let folder = tempfile::tempdir().expect("a folder");
        let branch = folder.path().join("v3.20");
        fs::create_dir(&branch).expect("a folder");
        symlink(repository, branch.join("main")).expect("a link");
        fs::copy(minirootfs, folder.path().join("minirootfs")).expect("a copy");
        fs::copy(
            branch.join("main/melange.rsa.pub"),
            folder.path().join("melange.rsa.pub"),
        )
        .expect("a copy");
        open_to_all(folder.path());
        let server = Server::of(folder.path()).expect("a server");
        Some(Alpine { folder, server })
    }

    fn flags(&self, more: &[&str]) -> Vec<String> {
        let path = |name| self.folder.path().join(name).display().to_string();
        let mut words: Vec<String> = ["create", "-n", "set", "-b", "alpine", "--suite", "v3.20"]
            .iter()
            .chain(&["--components", "main", "--platform", "linux/amd64"])
            .chain(&["--mirror"])
            .map(ToString::to_string)
            .collect();
        words.extend([self.server.url(), "--minirootfs".to_owned(), path("minirootfs")]);
        words.extend(["--keys".to_owned(), path(".")]);
        words.extend(more.iter().map(ToString::to_string));
        words
    }
}

fn ubuntu(server: &Server, folder: &Path, key: &str, more: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = ["create", "-n", "set", "-b", "ubuntu", "--mirror"]
        .map(str::to_owned)
        .to_vec();
    words.extend([server.url(), "--keys".to_owned()]);
    words.push(folder.join(key).display().to_string());
    words.extend(more.iter().map(ToString::to_string));
    words
}

fn open_to_all(folder: &Path) {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, mode).expect("it is ours");
}

/// Somebody with a home of their own, who need not be us.
struct Somebody {
    home: tempfile::TempDir,
    program: PathBuf,
    uid: Option<u32>,
}

impl Somebody {
    /// Ourselves.
    fn us() -> Somebody {
        let home = tempfile::tempdir().expect("a folder");
        fs::create_dir(home.path().join("tmp")).expect("a folder");
        open_to_all(home.path());
        Somebody {
            home,
            program: assert_cmd::cargo::cargo_bin("firebrick"),
            uid: None,
        }
    }

    /// Another user: the program may be where they cannot look.
    fn other(uid: u32) -> Somebody {
        let us = Somebody::us();
        let program = us.home.path().join("firebrick");
        fs::copy(&us.program, &program).expect("a copy");
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("we are root");
        own(us.home.path());
        own(&us.home.path().join("tmp"));
        Somebody {
            program,
            uid: Some(uid),
            ..us
        }
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("rootfs")
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TMPDIR", self.temp())
            .env("FIREBRICK_HOME", self.state())
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn temp(&self) -> PathBuf {
        self.home.path().join("tmp")
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("fb")
    }

    fn image(&self) -> PathBuf {
        self.state().join("images/rootfs-set.ext4")
    }

    /// Makes the image, sound and with nothing beside it.
    fn create(&self, words: &[String]) -> String {
        let output = self.command(words).output().expect("the binary starts");
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        Image::check(&self.image()).expect("a sound image");
        self.has_left_nothing();
        said
    }

    /// What it says, and leaves nothing.
    fn refused(&self, words: &[String]) -> String {
        let output = self.command(words).output().expect("the binary starts");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!self.image().exists(), "{said}");
        self.has_left_nothing();
        said
    }

    fn has_left_nothing(&self) {
        assert_eq!(names_in(&self.temp()), [""; 0]);
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The files of an image, in a folder; with their owners, as far as we may give them away.
fn unpacked(image: &Path, folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    let request = format!("rdump / {}", folder.display());
    let output = oracle::run("debugfs", ["-R", &request, &image.display().to_string()]).expect("debugfs");
    assert!(folder.join("etc").is_dir(), "{}", text(&output));
}

fn owner(image: &Path, path: &str) -> String {
    let image = Image::check(image).expect("a sound image");
    let said = image.debugfs(&format!("stat {path}")).expect("debugfs");
    let line = said
        .lines()
        .find(|line| line.starts_with("User:"))
        .expect("an owner");
    line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
}

/// A user of this machine with ranges of IDs, if we can become others at all.
fn user_with_ranges() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        leave_out("somebody else: only root can become others");
        return None;
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid, passwd) = (read("/etc/subuid"), read("/etc/subgid"), read("/etc/passwd"));
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let has = |table: &str| table.lines().any(|line| line.starts_with(&format!("{name}:")));
        (has(&subuid) && has(&subgid)).then(|| fields.nth(1)?.parse().ok())?
    });
    if found.is_none() {
        leave_out("somebody else: no user has ranges in /etc/subuid and /etc/subgid");
    }
    found
}

/// The same image, whoever makes it.
fn is_the_same_for_somebody_else(words: &[String], image: &Path) {
    let Some(uid) = user_with_ranges() else { return };
    let other = Somebody::other(uid);
    other.create(words);
    let same = fs::read(other.image()).expect("an image") == fs::read(image).expect("an image");
    assert!(same, "user {uid} makes other bytes");
}

/// What a program prints in a VM that boots the image.
fn booted(image: &Path, program: &[&str]) -> Option<String> {
    let vms = vm::Home::new()?;
    let image = image.display().to_string();
    let words = [&["run", "-t", "200", "-i", &image, "--"], program].concat();
    let (code, stdout, stderr) = vms.output(&words);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    vms.no_process_is_left();
    Some(stdout)
}

/// The image tells of its layers, as one of a container image does: so many, and firebrick's own, each in its place.
fn is_listed(us: &Somebody, words: &[String], layers: usize) {
    let said = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let output = us.command(&words).output().expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let image: Value =
        serde_json::from_str(&said(&["cat", "set", "/etc/firebrick/image.json"])).expect("JSON");
    let list = image["Layers"].as_array().expect("a list");
    assert_eq!(list.len(), layers + 1, "{words:?}: {image}");
    let starts: Vec<u64> = list.iter().filter_map(|layer| layer["Start"].as_u64()).collect();
    assert!(
        starts.is_sorted() && starts.len() == list.len() && starts[0] > 0,
        "{image}"
    );
    for (place, layer) in list.iter().enumerate() {
        let digest = layer["DiffId"]
            .as_str()
            .map(|digest| digest.starts_with("sha256:") && digest.len() == 71);
        assert_eq!(digest, (place < layers).then_some(true), "{image}");
    }
    assert!(image["Cmd"].is_array() && image["Created"].is_string(), "{image}");
    assert_eq!(image.get("ImageDigest"), None, "no registry has it: {image}");
    let inspected: Value = serde_json::from_str(&said(&["inspect", "--json", "set"])).expect("JSON");
    assert_eq!(inspected["image"], image);
    let page = us.home.path().join("page.html");
    said(&["inspect", "set", "--html", &page.display().to_string()]);
    let page = fs::read_to_string(page).expect("a page");
    let first = list[0]["DiffId"].as_str().expect("a digest");
    assert!(
        page.contains(&format!("layer 1 ({})", &first[7..19])),
        "the page names its layers"
    );
    assert!(!page.contains(&format!("layer {} (", layers + 1)));
}

#[test]
fn alpine_packages_become_an_image_that_boots() {
    let Some(alpine) = Alpine::new() else { return };
    let us = Somebody::us();
    let words = alpine.flags(&["-p", "replayout"]);
    let said = us.create(&words);
    assert!(
        said.contains("Installing alpine v3.20 and 1 package: replayout"),
        "{said}"
    );
    assert_eq!(owner(&us.image(), "/etc/shadow"), "User: 0 Group: 42");
    is_listed(&us, &words[..2], 1);
    // By the words of the image's own apk.
    let root = us.home.path().join("root");
    unpacked(&us.image(), &root);
    let apk = |words: &[&str]| {
        let lib = |folder: &str| root.join(folder).display().to_string();
        let output = Command::new(root.join("lib/ld-musl-x86_64.so.1"))
            .args(["--library-path", &format!("{}:{}", lib("lib"), lib("usr/lib"))])
            .arg(root.join("sbin/apk"))
            .args(["--root", &root.display().to_string()])
            .args(words)
            .output()
            .expect("apk starts");
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert_eq!(apk(&["info", "-e", "replayout"]), "replayout\n");
    let packages = apk(&["info"]);
    assert!(
        packages.lines().count() > 10 && packages.contains("alpine-baselayout"),
        "{packages}"
    );
    let odd = apk(&["audit", "--system"]);
    assert!(!odd.lines().any(|line| line.starts_with(['U', 'X'])), "{odd}");
    is_the_same_for_somebody_else(&words, &us.image());
    if let Some(release) = booted(&us.image(), &["cat", "/etc/os-release"]) {
        assert!(release.contains("ID=alpine\n"), "{release}");
    }
}

/// Minutes on a busy machine: `mmdebstrap` installs a whole system, twice. It is the one test that does.
#[test]
fn an_archive_becomes_an_image_that_boots() {
    if !oracle::have("mmdebstrap").expect("what the tests need") {
        return;
    }
    let folder = ubuntu_archive(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("an archive");
    let server = Server::of(&folder.join("archive")).expect("a server");
    // Everybody may read the key.
    let keys = tempfile::tempdir().expect("a folder");
    open_to_all(keys.path());
    fs::copy(folder.join("key.gpg"), keys.path().join("key.gpg")).expect("a copy");
    let us = Somebody::us();
    let words = ubuntu(&server, keys.path(), "key.gpg", &["-p", "python3-minimal"]);
    let said = us.create(&words);
    // What the real tool says of itself, in its order, below the first step.
    let told = [
        "[1/6] Installing ubuntu noble and 1 package: python3-minimal\n",
        "      looking for ubuntu noble\n",
        "      running apt-get update\n",
        "      downloading packages with apt\n",
        "      extracting archives\n",
        "      installing essential packages\n",
        "      installing remaining packages inside the chroot\n",
        "      creating tarball\n",
    ];
    let mut rest = said.as_str();
    for line in told {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("no {line:?} in its place: {said}"));
        rest = &rest[at + line.len()..];
    }
    is_listed(&us, &words[..2], 1);
    assert_eq!(owner(&us.image(), "/etc/shadow"), "User: 0 Group: 42");
    let root = us.home.path().join("root");
    unpacked(&us.image(), &root);
    let dpkg = |words: &[&str]| {
        let root = format!("--root={}", root.display());
        text(&oracle::run("dpkg", [&[root.as_str()], words].concat()).expect("dpkg"))
    };
    assert_eq!(dpkg(&["--verify"]), "");
    assert_eq!(dpkg(&["--audit"]), "");
    assert!(dpkg(&["-s", "python3-minimal"]).contains("Status: install ok installed"));
    let sources = fs::read_to_string(root.join("etc/apt/sources.list")).expect("sources");
    assert_eq!(sources, format!("deb {} noble main universe\n", server.url()));
    assert!(!root.join("etc/resolv.conf").exists(), "it would be this host's");
    let hosts = fs::read_to_string(root.join("etc/hosts")).expect("hosts");
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
    is_the_same_for_somebody_else(&words, &us.image());
    if let Some(answer) = booted(
        &us.image(),
        &["python3", "-c", "print(open('/etc/os-release').read(), 6 * 7)"],
    ) {
        assert!(
            answer.contains("ID=debian\n") && answer.ends_with(" 42\n"),
            "{answer}"
        );
    }
}

#[test]
fn a_script_and_a_recipe_start_from_packages() {
    let Some(alpine) = Alpine::new() else { return };
    let us = Somebody::us();
    let at = |name: &str| us.home.path().join(name);
    fs::write(
        at("setup"),
        "apk info -e replayout > /etc/told\nid -u >> /etc/told\n",
    )
    .expect("a file");
    us.create(&alpine.flags(&["-p", "replayout", "--post-install", "setup"]));
    let told = |us: &Somebody, path: &str| {
        let words = ["cat", "set", path].map(str::to_owned);
        text(&us.command(&words).output().expect("the binary starts"))
    };
    assert_eq!(told(&us, "/etc/told"), "replayout\n0\n");
    is_listed(&us, &["create --post-install".to_owned()], 2);
    // A recipe has no flags for keys and the base system, so its mirror must have them.
    let branch = alpine.folder.path().join("v3.20/releases/x86_64");
    fs::create_dir_all(&branch).expect("folders");
    let minirootfs = alpine.folder.path().join("minirootfs");
    fs::copy(&minirootfs, branch.join("base.tar.gz")).expect("a copy");
    let sum = oracle::run_ok("sha256sum", [&minirootfs]).expect("a digest");
    let sum = sum.split(' ').next().expect("a digest");
    fs::write(
        branch.join("latest-releases.yaml"),
        format!("---\n-\n  flavor: alpine-minirootfs\n  file: base.tar.gz\n  sha256: {sum}\n"),
    )
    .expect("a list");
    fs::write(
        at("r.toml"),
        format!(
            "from = {{ distribution = \"alpine\", suite = \"v3.20\", mirror = \"{}\" }}\nplatform = \"linux/amd64\"\n\
             name = \"set\"\nhostname = \"box\"\ncmd = [\"/bin/sh\"]\nrun = \"apk info > /etc/told\"\n",
            alpine.server.url()
        ),
    )
    .expect("a recipe");
    us.create(&["build", "r.toml"].map(str::to_owned));
    assert_eq!(told(&us, "/etc/hostname"), "box\n");
    assert!(told(&us, "/etc/told").contains("alpine-baselayout\n"));
    assert!(told(&us, "/etc/os-release").contains("VERSION_ID=3.20.3\n"));
    is_listed(&us, &["build".to_owned()], 2);
}

#[test]
fn what_cannot_be_had_is_refused_with_the_way_out() {
    let us = Somebody::us();
    let words = |words: &[&str]| {
        ["create", "-n", "set"]
            .iter()
            .chain(words)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    for (given, told) in [
        (&["-b", "debian", "--suite", "../x"][..], "see what there is"),
        (&["-l", "dotnet"], "debian has no packages for dotnet"),
        (&["-p", "a b"], "name packages as the distribution does"),
        (
            &["-b", "alpine", "--snapshot", "20250101"],
            "alpine's mirrors keep no snapshots",
        ),
        (
            &["--platform", "linux/mips"],
            "choose another: --platform linux/amd64",
        ),
        (
            &["--mirror", "deb [trusted=yes] http://x/ a main"],
            "if you trust the mirror and the way to it: --insecure-mirror",
        ),
        (
            &["--mirror", "http://127.0.0.1:1/debian"],
            "name a mirror that this host reaches: --mirror http://HOST/debian",
        ),
    ] {
        let said = us.refused(&words(given));
        assert!(said.contains(told), "{given:?}: {said}");
    }
    // No such language is a matter of the command line.
    let cobol = us
        .command(&words(&["-l", "cobol"]))
        .output()
        .expect("the binary starts");
    assert_eq!(cobol.status.code(), Some(2));
    assert!(
        text(&cobol).contains("there are: bash, dotnet, go, java"),
        "{}",
        text(&cobol)
    );
    // No tool.
    let empty = us.home.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let output = us
        .command(&words(&["-b", "debian"]))
        .env("PATH", &empty)
        .output()
        .expect("the binary starts");
    let said = text(&output);
    assert!(
        said.contains("mmdebstrap is not installed") && said.contains("apt-get install mmdebstrap"),
        "{said}"
    );
    us.has_left_nothing();
}

#[test]
fn what_an_archive_refuses_is_told_with_the_way_out() {
    let Some(alpine) = Alpine::new() else { return };
    let us = Somebody::us();
    let said = us.refused(&alpine.flags(&["-p", "nonesuch"]));
    assert!(
        said.contains("nonesuch (no such package)") && said.contains("hint: find its name"),
        "{said}"
    );
    let mut words = alpine.flags(&["-p", "replayout"]);
    let keys = words.iter().position(|word| word == "--keys").expect("a flag");
    words.drain(keys..keys + 2);
    let said = us.refused(&words);
    assert!(
        said.contains("UNTRUSTED signature") && said.contains("--keys FOLDER"),
        "{said}"
    );
    let mut words = alpine.flags(&["-p", "replayout"]);
    let suite = words.iter().position(|word| word == "v3.20").expect("a value");
    words[suite] = "v9.99".to_owned();
    let said = us.refused(&words);
    assert!(said.contains("and a release that it has: --suite"), "{said}");
    // Somebody for whom nobody has set IDs aside.
    if rustix::process::geteuid().is_root() {
        let nobody = Somebody::other(54_321);
        let said = nobody.refused(&alpine.flags(&["-p", "replayout"]));
        assert!(
            said.contains("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 54321"),
            "{said}"
        );
    }
    let folder = ubuntu_archive(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("an archive");
    let server = Server::of(&folder.join("archive")).expect("a server");
    let said = us.refused(&ubuntu(&server, &folder, "other.gpg", &[]));
    assert!(
        said.contains("NO_PUBKEY")
            && said.contains("hint: give Ubuntu's keys")
            && said.contains(": --keys FILE"),
        "{said}"
    );
    let said = us.refused(&ubuntu(&server, &folder, "key.gpg", &["--suite", "warty"]));
    assert!(
        said.contains("could not find ubuntu warty")
            && said.contains("--mirror http://HOST/ubuntu, and a release that it has: --suite"),
        "{said}"
    );
    let said = us.refused(&ubuntu(&server, &folder, "key.gpg", &["-p", "nonesuch"]));
    assert!(
        said.contains("Unable to locate package nonesuch") && said.contains("apt-cache search"),
        "{said}"
    );
}

/// Once it asks a mirror that never answers, it is in the middle of its work.
#[test]
fn interrupted_it_leaves_nothing() {
    let Some(alpine) = Alpine::new() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let mut alpine_words = alpine.flags(&["-p", "replayout"]);
    let mirror = alpine_words
        .iter()
        .position(|word| word == "--mirror")
        .expect("a flag");
    alpine_words[mirror + 1].clone_from(&url);
    let debian = ["create", "-n", "set", "--mirror", &url].map(str::to_owned);
    for (words, signal) in [(&alpine_words[..], Signal::INT), (&debian, Signal::TERM)] {
        if words == debian && !oracle::have("mmdebstrap").expect("what the tests need") {
            continue;
        }
        let us = Somebody::us();
        let mut child = us
            .command(words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let asked = silent.accept().expect("somebody asks");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("it runs");
        assert_eq!(child.wait().expect("its end").signal(), Some(signal.as_raw()));
        drop(asked);
        let mut said = String::new();
        let _ = child
            .stderr
            .take()
            .expect("it is piped")
            .read_to_string(&mut said);
        us.has_left_nothing();
        assert!(!us.image().exists());
        let ours = format!("FIREBRICK_HOME={}", us.state().display());
        vm::eventually(vm::LIMIT, || processes::with_variable(&ours).is_empty());
    }
}

/// Who is killed tidies nothing up; what the tool works in goes all the same, and the rest with the next run.
#[test]
fn killed_it_leaves_no_tool_and_the_next_removes_its_folder() {
    let us = Somebody::us();
    let bin = tempfile::tempdir().expect("a folder");
    open_to_all(bin.path());
    let tool = bin.path().join("mmdebstrap");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && exit\n: > \"$TMPDIR/there\"\nsleep 600\nexit 1\n";
    fs::write(&tool, script).expect("a file");
    open_to_all(&tool);
    let path = std::env::var("PATH").expect("a PATH");
    let words = ["create", "-n", "set", "--mirror", "http://127.0.0.1:1/debian"].map(str::to_owned);
    let mut child = us
        .command(&words)
        .env("PATH", format!("{}:{path}", bin.path().display()))
        // Nobody need be asked for the time.
        .env("SOURCE_DATE_EPOCH", "1735689600")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let ours = us.temp().join(format!("firebrick-{}", child.id()));
    let scratch = || names_in(&ours).first().map(|name| ours.join(name));
    vm::eventually(vm::LIMIT, || {
        scratch().is_some_and(|scratch| scratch.join("there").exists())
    });
    let variable = format!("TMPDIR={}", scratch().expect("it was there").display());
    assert!(!processes::with_variable(&variable).is_empty());
    child.kill().expect("it runs");
    child.wait().expect("its end");
    vm::eventually(vm::LIMIT, || names_in(&ours).is_empty());
    assert_eq!(processes::with_variable(&variable).len(), 0);
    us.refused(&words);
}

/// What scripts of packages could write to is what the tool is given.
#[test]
fn the_tool_gets_no_file_that_firebrick_was_started_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["bin", "tmp"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    let tool = at("bin/mmdebstrap");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && exit\nls -l /proc/self/fd >&2\nexit 1\n";
    fs::write(&tool, script).expect("a file");
    open_to_all(&tool);
    let path = std::env::var("PATH").expect("a PATH");
    let output = Command::new("sh")
        .args(["-c", "exec 9> \"$0\" 8< \"$0\"; exec \"$@\""])
        .arg(at("inherited"))
        .arg(assert_cmd::cargo::cargo_bin("firebrick"))
        .args([
            "-v",
            "rootfs",
            "create",
            "-n",
            "set",
            "--mirror",
            "http://127.0.0.1:1/debian",
        ])
        .env("PATH", format!("{}:{path}", at("bin").display()))
        .env("FIREBRICK_HOME", at("fb"))
        .env("TMPDIR", at("tmp"))
        .env("SOURCE_DATE_EPOCH", "1735689600")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(" 2 -> ") && !said.contains("inherited"), "{said}");
}
