//! `firebrick rootfs --image …`, as Nex has it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use firebrick_testkit::fixtures;
use firebrick_testkit::listing::{Kind, Listing};
use firebrick_testkit::oracle::Image;

use crate::support::Home;
use crate::support::folder::names_in;

/// What firebrick looks for in an image with OpenRC, in an Alpine that has none; and who is there.
const SCRIPT: &str = "for name in openrc openrc-run supervise-daemon; do cp /bin/busybox /sbin/$name; done\n\
                      id -u > /etc/ran\nid nex >> /etc/ran\n";

/// A home with a script, and Alpine as an image reference.
fn home() -> Option<(Home, String)> {
    let alpine = fixtures::fixture(fixtures::ALPINE[1])?;
    let home = Home::new();
    fs::write(home.path().join("script"), SCRIPT).expect("a script");
    Some((home, format!("tar:{}", alpine.display())))
}

fn made(home: &Home, args: &[&str]) -> PathBuf {
    let output = home
        .firebrick(&[&["rootfs", "--image"], args].concat())
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let path = String::from_utf8(output.stdout).expect("text");
    home.path().join(path.trim_end())
}

fn gunzipped(gz: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(gz).expect("the output");
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .expect("a gzip");
    bytes
}

fn listing(image: &Path) -> Listing {
    let image = Image::check(image).expect("a sound image");
    image.viewed_listing().expect("a listing")
}

#[test]
fn the_five_flags_make_the_image() {
    let Some((home, alpine)) = home() else { return };
    fs::copy("/bin/busybox", home.path().join("nex-agent"))
        .expect("a static program (Debian package busybox-static)");
    let args = [
        &*alpine,
        "--agent",
        "nex-agent",
        "--size",
        "167772160",
        "--script",
        "script",
        "--output",
        "x.ext4",
    ];
    let image = made(&home, &args);
    assert_eq!(fs::metadata(&image).expect("the image").len(), 167_772_160);
    let cat = |path: &str| {
        let output = home
            .firebrick(&["rootfs", "cat", "./x.ext4", path])
            .output()
            .expect("the binary starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The script ran during the build, as root, and nex was there.
    assert_eq!(
        cat("/etc/ran"),
        "0\nuid=1000(nex) gid=1000(nex) groups=1000(nex)\n"
    );
    assert!(cat("/etc/init.d/agent").contains("command=/usr/local/bin/agent\ncommand_user=nex:nex\n"));
    let own = cat("/etc/init.d/firebrick-agent");
    assert!(own.contains("--user nex"), "{own}");
    let found = listing(&image);
    let link = |path: &str| match &found[path.as_bytes()].kind {
        Kind::Symlink(target) => String::from_utf8_lossy(target).into_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(link("/etc/resolv.conf"), "/proc/net/pnp");
    assert_eq!(link("/etc/runlevels/default/agent"), "/etc/init.d/agent");
    assert_eq!(found[&b"/usr/local/bin/agent"[..]].mode & 0o777, 0o755);
    assert_eq!(
        (found[&b"/home/nex"[..]].uid, found[&b"/home/nex"[..]].gid),
        (1000, 1000)
    );
    everything_of_the_base_is_kept(&home, &alpine, &found);
}

/// But for what the settings are about.
fn everything_of_the_base_is_kept(home: &Home, alpine: &str, found: &Listing) {
    let plain = [
        "rootfs",
        "from-docker",
        "-n",
        "a",
        "-i",
        alpine,
        "--agent",
        "none",
        "-o",
        "a.ext4",
    ];
    home.firebrick(&plain).assert().success();
    let base = listing(&home.path().join("a.ext4"));
    let changed: Vec<String> = base
        .iter()
        .filter(|(path, record)| {
            let now = found.get(*path);
            now.is_none_or(|now| {
                (&now.kind, now.mode, now.uid, now.gid) != (&record.kind, record.mode, record.uid, record.gid)
            })
        })
        .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
        .collect();
    assert!(base.len() > 500, "{}", base.len());
    assert_eq!(
        changed,
        [
            "/etc/firebrick/image.json",
            "/etc/group",
            "/etc/passwd",
            "/etc/shadow"
        ],
        "{changed:?}"
    );
}

#[test]
fn the_defaults_are_nexs_and_gz_is_the_same_to_the_byte() {
    let Some((home, alpine)) = home() else { return };
    let gz = made(&home, &[&alpine, "--script", "script"]);
    assert_eq!(gz.file_name().expect("a name"), "rootfs.ext4.gz");
    let image = gunzipped(&gz);
    assert_eq!(image.len(), 157_286_400);
    fs::write(home.path().join("x.ext4"), &image).expect("a file");
    assert!(listing(&home.path().join("x.ext4")).contains_key(&b"/etc/ran"[..]));
    let first = fs::read(&gz).expect("the output");
    let again = made(
        &home,
        &[&alpine, "--script", "script", "--output", "again.ext4.gz"],
    );
    assert!(fs::read(again).expect("the output") == first);
    // Nothing is left beside it.
    let names = names_in(home.path());
    assert_eq!(
        names,
        ["again.ext4.gz", "fb", "rootfs.ext4.gz", "script", "x.ext4"]
    );
}

#[test]
fn what_is_not_to_be_had_is_said() {
    let Some((home, alpine)) = home() else { return };
    let said = |args: &[&str]| home.transcript(&[&["rootfs"], args].concat());
    let image = ["--image", &*alpine];
    let without = said(&image);
    assert!(
        without.contains("Alpine: openrc; Debian: openrc and sysvinit-core")
            && without.ends_with("exit code 1\n"),
        "{without}"
    );
    assert!(
        said(&[&image[..], &["--output", "x.img"]].concat()).contains("neither NAME.ext4 nor NAME.ext4.gz")
    );
    assert!(said(&["--size", "1"]).contains("--image <IMAGE>"));
    assert!(said(&[&image[..], &["list"]].concat()).contains("without a command"));
    for list in [&["list"][..], &["-v", "list"]] {
        assert!(said(list).ends_with("exit code 0\n"));
    }
    assert!(said(&[]).contains("Usage:"));
    let left = names_in(home.path());
    assert!(
        left.iter().all(|name| name == "fb" || name == "script"),
        "{left:?}"
    );
}
