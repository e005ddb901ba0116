//! `rootfs build` with packages on top of a container image: Debian's from the mirror that this machine uses, Alpine's from a signed
//! repository of the fixtures. Judged by `dpkg`, by `apk` in the image, and by what stands in the layer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::server::Server;
use firebrick_testkit::{debian, fixtures};

use crate::support::Home;
use crate::support::folder::names_in;

fn write(home: &Home, path: &str, text: &str) {
    fs::write(home.path().join(path), text).expect("a file");
}

/// Builds the recipe `r.toml` as the image `app`.
fn build(home: &Home, more: &[&str], env: &[(String, String)]) -> (i32, String) {
    let args = [&["rootfs", "build", "r.toml", "-n", "app"], more].concat();
    let output = home
        .firebrick(&args)
        .envs(env.iter().cloned())
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("no signal ended it"), said)
}

/// Builds it, which must work: what was said, and the image.
fn built(home: &Home, more: &[&str], env: &[(String, String)]) -> (String, Vec<u8>) {
    let (code, said) = build(home, more, env);
    assert_eq!(code, 0, "{said}");
    let path = home.path().join("fb/images/rootfs-app.ext4");
    Image::check(&path).expect("a sound image");
    assert!(
        names_in(&home.path().join("fb/cache/sandbox")).is_empty(),
        "{said}"
    );
    (said, fs::read(path).expect("the image"))
}

fn refused(home: &Home, told: &str, hint: &str) {
    let (code, said) = build(home, &[], &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(told) && said.contains(hint), "{said}");
    assert!(names_in(&home.path().join("fb/images")).is_empty());
}

fn cat(home: &Home, path: &str) -> String {
    let output = home
        .firebrick(&["rootfs", "cat", "app", path])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{path}");
    String::from_utf8(output.stdout).expect("text")
}

/// The paths in the only layer of the cache.
fn layer(home: &Home) -> Vec<String> {
    let steps = home.path().join("fb/cache/steps");
    let names = names_in(&steps);
    assert_eq!(names.len(), 1, "{names:?}");
    let path = steps.join(&names[0]).display().to_string();
    let list = oracle::run_ok("tar", ["--zstd", "-tf", path.as_str()]).expect("a tar");
    list.lines().map(str::to_owned).collect()
}

/// How this machine's apt reaches its mirror.
fn proxies() -> Vec<(String, String)> {
    let proxy = |scheme: &str| {
        let output = Command::new("apt-config")
            .args(["shell", "PROXY", &format!("Acquire::{scheme}::Proxy")])
            .output()
            .expect("apt");
        let said = String::from_utf8(output.stdout).expect("text");
        let value = said.trim().strip_prefix("PROXY=")?.trim_matches('\'').to_owned();
        Some((format!("{scheme}_proxy"), value))
    };
    ["http", "https"].into_iter().filter_map(proxy).collect()
}

/// Where packages and the databases of them lie.
const BROUGHT: [&str; 5] = [
    "etc/",
    "usr/",
    "var/lib/dpkg/",
    "var/lib/apt/extended_states",
    "var/cache/debconf/",
];
/// Folders whose times change with what is in them.
const FOLDERS: [&str; 7] = [
    "tmp/",
    "var/",
    "var/cache/",
    "var/cache/ldconfig/",
    "var/lib/",
    "var/lib/apt/",
    "var/log/",
];

/// `dpkg` on what the image holds: it knows the packages, and each of their files is as they brought it.
fn dpkg_finds_all_in_order(home: &Home) {
    let root = home.path().join("root");
    fs::create_dir(&root).expect("a folder");
    let request = format!("rdump / {}", root.display());
    let image = home
        .path()
        .join("fb/images/rootfs-app.ext4")
        .display()
        .to_string();
    oracle::run("debugfs", ["-R", &request, &image]).expect("debugfs");
    let dpkg = |words: &[&str]| {
        let root = format!("--root={}", root.display());
        let output = oracle::run("dpkg", [&[root.as_str()], words].concat()).expect("dpkg");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert_eq!(dpkg(&["--audit"]), "");
    assert_eq!(dpkg(&["--verify", "jq", "libjq1"]), "");
    assert!(dpkg(&["-s", "jq"]).contains("Status: install ok installed"));
    let automatic = cat(home, "/var/lib/apt/extended_states");
    assert!(
        automatic.contains("Package: libjq1\n") && !automatic.contains("Package: jq\n"),
        "{automatic}"
    );
}

/// The same packages, byte for byte, are installed again; and nothing is left but what they bring.
#[test]
fn apt_installs_on_an_image_of_debian() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(tar) = debian::root(folder, "openrc", "openrc,sysvinit-core") else {
        return;
    };
    let home = Home::new();
    write(
        &home,
        "r.toml",
        &format!(
            "from = \"tar:{}\"\npackages = {{ debian = [\"jq\"], alpine = [\"nonesuch\"] }}\n",
            tar.display()
        ),
    );
    let env = proxies();
    let (said, first) = built(&home, &[], &env);
    assert!(
        said.contains("[2/7] Installing packages\n") && said.contains("installing packages: done in "),
        "{said}"
    );
    for path in layer(&home) {
        let is_known =
            BROUGHT.iter().any(|start| path.starts_with(start)) || FOLDERS.contains(&path.as_str());
        assert!(
            is_known && !path.contains("policy-rc.d"),
            "{path} is in the layer"
        );
    }
    let (said, again) = built(&home, &[], &[]);
    assert!(
        said.contains("installing packages: cached") && again == first,
        "{said}"
    );
    let (said, again) = built(&home, &["--no-cache"], &env);
    assert!(
        said.contains("installing packages: done in ") && again == first,
        "{said}"
    );

    dpkg_finds_all_in_order(&home);

    // A name that nobody has is apt's to refuse.
    write(
        &home,
        "r.toml",
        &format!("from = \"tar:{}\"\npackages = [\"nonesuch\"]\n", tar.display()),
    );
    let (code, said) = build(&home, &[], &env);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("installing 1 package (nonesuch) ended with exit code 100")
            && said.contains("Unable to locate package nonesuch")
            && said.contains("hint: find its name as the image's release has it"),
        "{said}"
    );
}

/// Alpine's root whose only repository is served here, and trusted.
fn alpine(home: &Home) -> Option<(PathBuf, Server)> {
    let base = fixtures::fixture(fixtures::ALPINE[1])?;
    let repository = fixtures::fixture("apk/repository")?;
    let server = Server::of(&repository).expect("a server");
    let (tar, more) = (home.path().join("alpine.tar"), home.path().join("more"));
    fs::create_dir_all(more.join("etc/apk/keys")).expect("folders");
    fs::write(more.join("etc/apk/repositories"), format!("{}\n", server.url())).expect("a file");
    let key = "etc/apk/keys/melange.rsa.pub";
    fs::copy(repository.join("melange.rsa.pub"), more.join(key)).expect("a copy");
    let unzipped = Command::new("gzip").arg("-dc").arg(base).output().expect("gzip");
    fs::write(&tar, unzipped.stdout).expect("a tar");
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(&more)
        .arg("-rf")
        .arg(&tar)
        .args(["etc/apk/repositories", key])
        .status()
        .expect("tar");
    assert!(status.success());
    Some((tar, server))
}

/// Before all else, and in one copy with the commands behind them; a recipe that starts from another adds its own.
#[test]
fn apk_installs_on_an_image_of_alpine() {
    let home = Home::new();
    let Some((tar, _server)) = alpine(&home) else {
        return;
    };
    let from = format!("from = \"tar:{}\"\n", tar.display());
    write(
        &home,
        "r.toml",
        &format!("{from}run = [\"apk audit > /etc/told\"]\n"),
    );
    built(&home, &[], &[]);
    let plain = cat(&home, "/etc/told");
    write(
        &home,
        "base.toml",
        &format!("{from}packages = [\"custom-ca-certs-1\"]\n"),
    );
    write(
        &home,
        "r.toml",
        "from = { recipe = \"base.toml\" }\npackages = { alpine = [\"replayout\"] }\nuser = \"1000\"\n\
         run = [{ command = \"apk info -e replayout custom-ca-certs-1 > /etc/told; apk audit >> /etc/told\", user = \"root\" }]\n",
    );
    let (said, _) = built(&home, &[], &[]);
    assert!(
        said.contains("[2/7] Installing 2 packages, running 1 command\n")
            && said.matches("unpacking the image").count() == 1,
        "{said}"
    );
    let told = cat(&home, "/etc/told");
    let (installed, audit): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| !line.contains(' '));
    assert_eq!(installed, ["replayout", "custom-ca-certs-1"], "{told}");
    // The image's own remarks stay, whatever letter they have now.
    let path = |line: &str| {
        line.split_once(' ')
            .map_or(String::new(), |(_, path)| path.to_owned())
    };
    let before: Vec<String> = plain.lines().map(path).collect();
    let ours = ["etc/told", "etc/resolv.conf"];
    let known = |line: &str| before.contains(&path(line)) || ours.contains(&&*path(line));
    assert!(audit.into_iter().all(known), "{told}");
    assert_eq!(cat(&home, "/etc/apk/world").matches("replayout").count(), 1);
    let listing = home.transcript(&["rootfs", "ls", "app", "/var/cache/apk"]);
    assert!(
        !listing.contains(".apk") && !listing.contains("APKINDEX"),
        "{listing}"
    );
}

#[test]
fn what_apk_refuses_is_told_with_the_way_out() {
    let home = Home::new();
    let Some((tar, server)) = alpine(&home) else {
        return;
    };
    let from = format!("from = \"tar:{}\"\n", tar.display());
    // Without its key nothing of it is installed.
    let keyless = Home::new();
    write(&keyless, "r.toml", &format!("{from}packages = [\"replayout\"]\n"));
    let stripped = keyless.path().join("alpine.tar");
    fs::copy(&tar, &stripped).expect("a copy");
    let status = Command::new("tar")
        .arg("--delete")
        .arg("-f")
        .arg(&stripped)
        .arg("etc/apk/keys/melange.rsa.pub")
        .status();
    assert!(status.expect("tar").success());
    write(
        &keyless,
        "r.toml",
        &format!(
            "from = \"tar:{}\"\npackages = [\"replayout\"]\n",
            stripped.display()
        ),
    );
    refused(&keyless, "UNTRUSTED signature", "hint: ");

    let other = Home::new();
    write(&other, "r.toml", &format!("{from}packages = [\"nonesuch\"]\n"));
    refused(&other, "nonesuch (no such package)", "hint: find its name");
    write(
        &other,
        "r.toml",
        &format!("{from}packages = {{ debian = [\"git\"] }}\n"),
    );
    refused(
        &other,
        "the recipe \"r.toml\" names packages, but none for alpine, from which it starts",
        "hint: name them, or that there are none: packages = { alpine = [] }",
    );
    drop(server);
    write(&other, "r.toml", &format!("{from}packages = [\"replayout\"]\n"));
    refused(&other, "installing 1 package (replayout) ended with", "hint: ");
}

#[test]
fn images_without_a_package_manager_are_refused() {
    let home = Home::new();
    let root = home.path().join("root");
    for folder in ["bin", "usr/bin", "etc"] {
        fs::create_dir_all(root.join(folder)).expect("folders");
    }
    write(&home, "r.toml", "from = \"dir:root\"\npackages = [\"git\"]\n");
    let none =
        "error: the image that the recipe \"r.toml\" starts from has no package manager that firebrick knows";
    let start = "hint: start from an image that has apt-get or apk, such as debian:bookworm-slim or alpine\n";
    // Nothing at all, as in images of one static program; then a shell.
    refused(&home, &format!("{none}\n"), start);
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "command", "rm", "mkdir", "mv"] {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    refused(&home, &format!("{none}\n"), start);
    fs::write(root.join("etc/os-release"), "ID=fedora\nVERSION_ID=42\n").expect("a file");
    symlink("../../bin/busybox", root.join("usr/bin/dnf")).expect("a link");
    refused(
        &home,
        &format!("{none}: it has dnf\n"),
        "hint: install them with a command: run = [{ command = \"dnf …\", network = true }]\n",
    );
    // Who wants none there needs no package manager.
    write(&home, "r.toml", "from = \"dir:root\"\npackages = []\n");
    let (said, _) = built(&home, &[], &[]);
    assert!(said.contains("[2/6] "), "{said}");
}
