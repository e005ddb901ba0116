//! Proves that tars as others write them, GNU tar and libarchive's `bsdtar`, in each of their formats and by each
//! compressor, show as the folder that they were made of.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use firebrick_testkit::build::{Recipe, build_found};
use firebrick_testkit::listing::{Ignore, Listing, diff};
use firebrick_testkit::{oracle, own, walk};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What every format can carry.
fn plain_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::write(at("dir/file"), vec![7; 10_000]).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("dir/file"), at("hard")).unwrap();
    symlink("../nowhere", at("dir/link")).unwrap();
    fs::hard_link(at("dir/link"), at("hard-to-link")).unwrap();
    oracle::run_ok("mkfifo", [at("fifo")]).unwrap();
    fs::set_permissions(at("empty"), Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("dir/sub"), Permissions::from_mode(0o1777)).unwrap();
    if is_root() {
        for (name, kind, major, minor) in [("null", "c", "1", "3"), ("disk", "b", "259", "70000")] {
            let path = at(name).display().to_string();
            oracle::run_ok("mknod", [path.as_str(), kind, major, minor]).unwrap();
        }
        chown(at("dir/file"), Some(1000), Some(1001)).unwrap();
    }
}

/// What takes extensions: long names, large owners, times before 1970 and after 2242, holes.
fn rich_tree(root: &Path) {
    plain_tree(root);
    let at = |name: &str| root.join(name);
    let long = "n".repeat(255);
    fs::create_dir_all(at(&format!("{long}/{long}"))).unwrap();
    fs::write(at(&format!("{long}/{long}/{long}")), "long").unwrap();
    fs::hard_link(at(&format!("{long}/{long}/{long}")), at("hard-to-long")).unwrap();
    fs::hard_link(at("hard-to-long"), at(&format!("{long}/hard"))).unwrap();
    symlink("t".repeat(300), at("long-target")).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    for n in 0..40_u64 {
        sparse.write_all_at(&[b'x'; 5000], n * 65_536 + 100).unwrap();
    }
    File::create(at("hole")).unwrap().set_len(1 << 30).unwrap();
    for (name, seconds, nanos) in [("empty", -3, 0), ("sparse", 1 << 33, 1), ("dir/file", -1, 0)] {
        let time = match u64::try_from(seconds) {
            Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
            Err(_) => {
                SystemTime::UNIX_EPOCH - Duration::new(i64::unsigned_abs(seconds), 0)
                    + Duration::new(0, nanos)
            }
        };
        File::open(at(name)).unwrap().set_modified(time).unwrap();
    }
    if is_root() {
        chown(at("sparse"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    }
}

/// What only PAX carries.
fn add_attributes(root: &Path) {
    let at = |name: &str| root.join(name);
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(at(name), key, value, rustix::fs::XattrFlags::empty()).unwrap_or_else(|error| {
            panic!("this test needs a filesystem with xattrs in the temporary folder: {key}: {error}")
        });
    };
    set("dir/file", "user.binary", b"\0\n= \xff");
    set("dir", "user.folder", b"value");
    if is_root() {
        // cap_net_raw+ep, as `ping` has it.
        let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        set("empty", "security.capability", capability);
    }
    for (name, acl) in [
        ("hard", "u:12345:rw,g:70001:r,m::rwx"),
        ("dir/sub", "u:12345:x,d:u:12346:rwx,d:m::rwx"),
        ("dir", "d:u::rwx,d:g::r-x,d:o::---"),
    ] {
        oracle::run_ok("setfacl", ["-m", acl, &at(name).display().to_string()]).unwrap();
    }
}

/// What a format leaves out.
#[derive(Clone, Copy, Default)]
struct Lacks {
    nanoseconds: bool,
    xattrs: bool,
}

/// Packs the folder with each of the commands and compares what an image of it shows.
fn check(tool: &str, root: &Path, forms: &[(&[&str], Lacks)]) {
    if !oracle::have(tool).unwrap() {
        return;
    }
    let mut expected = walk::walk(root).unwrap();
    // The host's own, which no tar is asked to carry.
    for record in expected.values_mut() {
        record.xattrs.remove(b"security.selinux".as_slice());
    }
    let tar = tempfile::NamedTempFile::new().unwrap();
    for (form, lacks) in forms {
        let to = [
            "-cf".as_ref(),
            tar.path().as_os_str(),
            "-C".as_ref(),
            root.as_os_str(),
            OsStr::new("."),
        ];
        let arguments = form.iter().map(OsStr::new).chain(to);
        oracle::run_ok(tool, arguments).unwrap();
        let source = format!("tar:{}", tar.path().display()).parse().unwrap();
        let built =
            build_found(&source, &Recipe::default()).unwrap_or_else(|error| panic!("{form:?}: {error:#}"));
        let mut expected = expected.clone();
        leave_out(&mut expected, *lacks);
        let ignore = Ignore {
            dir_links: true,
            ..Ignore::NOTHING
        };
        if let Err(error) = diff(&expected, &own::listing(built.image.path()).unwrap(), &ignore) {
            panic!("{tool} {form:?}: {error:#}");
        }
    }
}

fn leave_out(listing: &mut Listing, lacks: Lacks) {
    for record in listing.values_mut() {
        if lacks.nanoseconds {
            record.mtime.nanos = 0;
        }
        if lacks.xattrs {
            record.xattrs.clear();
        }
    }
}

const ALL: Lacks = Lacks {
    nanoseconds: false,
    xattrs: false,
};
const OLD: Lacks = Lacks {
    nanoseconds: true,
    xattrs: true,
};

#[test]
fn gnu_tar_in_its_old_formats() {
    let dir = tempfile::tempdir().unwrap();
    plain_tree(dir.path());
    let forms: &[(&[&str], Lacks)] = &[
        (&["--format=ustar"], OLD),
        (&["--format=oldgnu", "-S"], OLD),
        (&["--format=ustar", "-z"], OLD),
        (&["--format=ustar", "-j"], OLD),
        (&["--format=ustar", "-J"], OLD),
        (&["--format=ustar", "--zstd"], OLD),
    ];
    check("tar", dir.path(), forms);
    // V7 has no devices or pipes.
    for name in ["fifo", "null", "disk"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    check("tar", dir.path(), &[(&["--format=v7"], OLD)]);
}

#[test]
fn gnu_tar_with_all_that_it_can_say() {
    let dir = tempfile::tempdir().unwrap();
    rich_tree(dir.path());
    fs::write(dir.path().join(OsStr::from_bytes(b"not \xff text")), "x").unwrap();
    add_attributes(dir.path());
    // Of these two bsdtar makes something else: a name in libarchive's spelling, and 2.25 s before the epoch.
    let spaced = rustix::fs::setxattr(
        dir.path(),
        "user.two words",
        b"x",
        rustix::fs::XattrFlags::empty(),
    );
    spaced.unwrap();
    let time = SystemTime::UNIX_EPOCH - Duration::from_millis(1750);
    File::open(dir.path().join("hole"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let pax = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls"];
    let with = |more: &[&'static str]| [&pax[..], more].concat();
    let (whole, v00, v01, v10) = (
        with(&[]),
        with(&["-S", "--sparse-version=0.0"]),
        with(&["-S", "--sparse-version=0.1", "--zstd"]),
        with(&["-S", "--sparse-version=1.0"]),
    );
    let forms: &[(&[&str], Lacks)] = &[
        (&["--format=gnu", "-S"], OLD),
        (&v00, ALL),
        (&v01, ALL),
        (&v10, ALL),
    ];
    check("tar", dir.path(), forms);
    // Without -S the gigabyte is one of zeros.
    fs::remove_file(dir.path().join("hole")).unwrap();
    check("tar", dir.path(), &[(&whole, ALL)]);
}

#[test]
fn libarchive_with_all_that_it_can_say() {
    let dir = tempfile::tempdir().unwrap();
    plain_tree(dir.path());
    let forms: &[(&[&str], Lacks)] = &[(&["--format=ustar"], OLD), (&["--format=gnutar", "-z"], OLD)];
    check("bsdtar", dir.path(), forms);
    let dir = tempfile::tempdir().unwrap();
    rich_tree(dir.path());
    add_attributes(dir.path());
    let forms: &[(&[&str], Lacks)] = &[
        (&["--format=pax", "--xattrs", "--acls"], ALL),
        (
            &[
                "--format=pax",
                "--xattrs",
                "--acls",
                "--no-read-sparse",
                "--exclude=./hole",
                "-J",
            ],
            ALL,
        ),
    ];
    check("bsdtar", dir.path(), &forms[..1]);
    fs::remove_file(dir.path().join("hole")).unwrap();
    check("bsdtar", dir.path(), &forms[1..]);
}
