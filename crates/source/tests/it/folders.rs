//! `dir:`: the canonical tar stream of a folder.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use firebrick_digest::Digest;
use firebrick_testkit::oracle;

use crate::support::{chain, open, options, read, refusal};

fn reference(path: &Path) -> String {
    format!("dir:{}", path.display())
}

fn stream(path: &Path) -> Vec<u8> {
    let image = open(&reference(path), &options()).unwrap();
    assert_eq!(
        (
            image.layers[0].digest,
            image.layers[0].diff_id,
            image.layers[0].size
        ),
        (None, None, None)
    );
    read(&image.layers[0]).unwrap()
}

fn set_time(path: &Path, seconds: i64, nanos: u32) {
    let time = match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
        Err(_) => {
            SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + Duration::new(0, nanos)
        }
    };
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Name, type, mode, size, time, link and PAX records of every entry.
fn list(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let mut lines = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = char::from(header.entry_type().as_byte());
        let link = entry.link_name_bytes().map_or(String::new(), |link| {
            format!(" -> {}", String::from_utf8_lossy(&link))
        });
        let mut records = String::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for record in extensions {
                let record = record.unwrap();
                let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                if record.key_bytes() != b"path" && record.key_bytes() != b"linkpath" {
                    records.push_str(&format!(" {}={value}", record.key().unwrap()));
                }
            }
        }
        lines.push(format!(
            "{kind} {:04o} {name}{link}{records}",
            header.mode().unwrap()
        ));
    }
    lines
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("b/sub")).unwrap();
    fs::create_dir(at("a-dir")).unwrap();
    fs::write(at("b/file"), "content").unwrap();
    fs::write(at("a"), "").unwrap();
    fs::write(at("b.txt"), vec![b'x'; 1024]).unwrap();
    fs::hard_link(at("b/file"), at("z-link")).unwrap();
    symlink("/etc/passwd", at("b/link")).unwrap();
    fs::write(at(&"n".repeat(255)), "long").unwrap();
    symlink("t".repeat(300), at("long-target")).unwrap();
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o4751)).unwrap();
    for name in ["b/sub", "b/file", "a", "b.txt", &"n".repeat(255)] {
        set_time(&at(name), 1_000_000_000, 0);
    }
    set_time(&at("a"), -2, 500_000_000);
    set_time(&at("b.txt"), 1, 123);
    for name in ["b", "a-dir", ""] {
        set_time(&at(name), 5, 0);
    }
    for name in ["", "b", "b/sub", "a-dir"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["b/file", "b.txt", &"n".repeat(255)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    // Links get the time of the test; that is of no interest to the listing.
    folder
}

fn without_link_times(lines: Vec<String>) -> Vec<String> {
    lines
        .into_iter()
        .map(|line| match line.starts_with('2') {
            true => line.split(" mtime=").next().unwrap().to_owned(),
            false => line,
        })
        .collect()
}

#[test]
fn entries_are_sorted_and_complete() {
    let folder = tree();
    let lines = without_link_times(list(&stream(folder.path())));
    let expected = [
        "5 0755 ./".to_owned(),
        "0 4751 a mtime=-1.5".to_owned(),
        "5 0755 a-dir/".to_owned(),
        "5 0755 b/".to_owned(),
        "0 0644 b/file".to_owned(),
        "2 0777 b/link -> /etc/passwd".to_owned(),
        "5 0755 b/sub/".to_owned(),
        "0 0644 b.txt mtime=1.000000123".to_owned(),
        format!("2 0777 long-target -> {}", "t".repeat(300)),
        format!("0 0644 {}", "n".repeat(255)),
        "1 0644 z-link -> b/file".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let folder = tree();
    let first = stream(folder.path());
    assert_eq!(first, stream(folder.path()));
    // Made in another order, under another name, by a copy that keeps times and links.
    let copy = tempfile::tempdir().unwrap();
    oracle::run_ok(
        "cp",
        [
            "-a",
            folder.path().join(".").to_str().unwrap(),
            copy.path().to_str().unwrap(),
        ],
    )
    .unwrap();
    assert_eq!(Digest::of(&stream(copy.path())), Digest::of(&first));
    assert_eq!(first.len() % 512, 0);
}

#[test]
fn gnu_tar_unpacks_the_same_tree() {
    let folder = tree();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), stream(folder.path())).unwrap();
    let out = tempfile::tempdir().unwrap();
    let (archive, to) = (file.path().to_str().unwrap(), out.path().to_str().unwrap());
    oracle::run_ok("tar", ["-x", "-p", "--xattrs", "-f", archive, "-C", to]).unwrap();
    assert_eq!(stream(out.path()), stream(folder.path()));
}

/// A folder with a file of 8 GiB that holds two blocks and a bit.
fn sparse_tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("sparse")).unwrap();
    file.set_len((8 << 30) + 1).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"across two blocks", (5 << 30) - 8).unwrap();
    // Zeros that were written are holes too: what lies where is the filesystem's business.
    file.write_all_at(&[0; 100_000], 3 << 30).unwrap();
    file.write_all_at(b"!", 8 << 30).unwrap();
    let empty = File::create(folder.path().join("empty")).unwrap();
    empty.set_len(1 << 40).unwrap();
    fs::write(folder.path().join("zeros"), vec![0; 1 << 20]).unwrap();
    for name in ["sparse", "empty", "zeros", ""] {
        set_time(&folder.path().join(name), 5, 0);
    }
    folder
}

#[test]
fn holes_cost_nothing_and_stay_holes() {
    let folder = sparse_tree();
    let start = std::time::Instant::now();
    let bytes = stream(folder.path());
    // Reading all those zeros would take far longer than this, and fill the memory.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // One file's megabyte of written zeros has no hole, and so is content.
    assert!(bytes.len() < (1 << 20) + (64 << 10), "{}", bytes.len());
    let lines = list(&bytes);
    let records = " GNU.sparse.major=1 GNU.sparse.minor=0";
    assert!(
        lines[1].ends_with(&format!(
            "{records} GNU.sparse.name=empty GNU.sparse.realsize={}",
            1_u64 << 40
        )),
        "{lines:?}"
    );
    assert!(
        lines[2].contains(records) && !lines[3].contains("GNU"),
        "{lines:?}"
    );
    let map = format!("3\n0\n4096\n{}\n8192\n{}\n1\n", (5_u64 << 30) - 4096, 8_u64 << 30);
    assert!(bytes.windows(map.len()).any(|window| window == map.as_bytes()));
}

#[test]
fn gnu_tar_unpacks_the_same_holes() {
    let folder = sparse_tree();
    let out = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), stream(folder.path())).unwrap();
    let (archive, to) = (file.path().to_str().unwrap(), out.path().to_str().unwrap());
    oracle::run_ok("tar", ["-x", "-p", "-f", archive, "-C", to]).unwrap();
    for name in ["sparse", "empty", "zeros"] {
        let (own, theirs) = (folder.path().join(name), out.path().join(name));
        assert_eq!(
            fs::metadata(&own).unwrap().len(),
            fs::metadata(&theirs).unwrap().len()
        );
        // Far fewer blocks than the length says.
        assert!(fs::metadata(&theirs).unwrap().blocks() * 512 <= 2 << 20, "{name}");
    }
    for (offset, expected) in [
        (0, &b"start"[..]),
        ((5 << 30) - 8, b"across two blocks"),
        (8 << 30, b"!"),
    ] {
        let mut found = vec![1; expected.len()];
        File::open(out.path().join("sparse"))
            .unwrap()
            .read_exact_at(&mut found, offset)
            .unwrap();
        assert_eq!(found, expected);
    }
    assert_eq!(stream(out.path()), stream(folder.path()));
}

#[test]
fn what_is_not_a_file_or_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    oracle::run_ok("mkfifo", [folder.path().join("fifo")]).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        oracle::run_ok(
            "mknod",
            [folder.path().join("null").to_str().unwrap(), "c", "1", "3"],
        )
        .unwrap();
    }
    let bytes = stream(folder.path());
    let lines: Vec<String> = list(&bytes)
        .iter()
        .map(|line| line.split(" mtime=").next().unwrap().to_owned())
        .collect();
    assert!(
        lines[1].starts_with("6 ") && lines[1].ends_with(" fifo"),
        "{lines:?}"
    );
    assert!(
        lines.last().unwrap().ends_with(" socket FIREBRICK.type=socket"),
        "{lines:?}"
    );
    if is_root {
        let mut archive = tar::Archive::new(&bytes[..]);
        let device = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path_bytes().as_ref() == b"null")
            .unwrap();
        assert_eq!(device.header().device_major().unwrap(), Some(1));
        assert_eq!(device.header().device_minor().unwrap(), Some(3));
        assert_eq!(device.header().entry_type().as_byte(), b'3');
    }
}

#[test]
fn extended_attributes_are_records() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap_or_else(|error| {
            panic!("this test needs a file system with user xattrs in the temporary folder: {error}")
        });
    };
    set("user.b", b"line\nline\0");
    set("user.a", b"");
    set("user.overlay.opaque", b"y");
    let text = String::from_utf8_lossy(&stream(folder.path())).into_owned();
    let (a, b) = (
        text.find("24 SCHILY.xattr.user.a=\n"),
        text.find("34 SCHILY.xattr.user.b=line\nline\0\n"),
    );
    assert!(a.is_some() && b.is_some() && a < b, "{text:?}");
    assert!(!text.contains("overlay"), "{text:?}");
    set("user.a=b", b"1");
    let image = open(&reference(folder.path()), &options()).unwrap();
    assert!(
        read(&image.layers[0])
            .unwrap_err()
            .to_string()
            .contains("holds '='")
    );
}

#[test]
fn names_that_are_not_text_and_over_100_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let name = [&b"\xff\xfe"[..], &[b'n'; 150]].concat();
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(&name)), "x").unwrap();
    let bytes = stream(folder.path());
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<Vec<u8>> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path_bytes().into_owned())
        .collect();
    assert_eq!(names, [b"./".to_vec(), name]);
}

#[test]
fn whiteout_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    fs::write(folder.path().join("etc/.wh.motd"), "").unwrap();
    let image = open(&reference(folder.path()), &options()).unwrap();
    let text = read(&image.layers[0]).unwrap_err().to_string();
    assert!(
        text.contains("etc/.wh.motd") && text.contains("whiteouts"),
        "{text}"
    );
}

#[test]
fn files_that_change_while_read() {
    type Change = fn(&File);
    let changes: [(Change, &str); 3] = [
        (|file| file.set_len(2_000_000).unwrap(), "became shorter"),
        (|file| file.set_len(5_000_000).unwrap(), "became longer"),
        (|file| file.write_all_at(b"changed", 0).unwrap(), "time of change"),
    ];
    for (change, why) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![b'x'; 4_000_000]).unwrap();
        set_time(&path, 7, 0);
        let image = open(&reference(folder.path()), &options()).unwrap();
        let mut reader = image.layers[0].open().unwrap();
        let mut some = vec![0; 1_000_000];
        reader.read_exact(&mut some).unwrap();
        change(&file);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("changed while it was read") && text.contains(why),
            "{text}"
        );
    }
}

#[test]
fn a_folder_must_be_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), Path::new("/nonexistent")] {
        let text = refusal(&reference(path), &options());
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}

#[test]
fn deep_folders_are_walked() {
    let folder = tempfile::tempdir().unwrap();
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 200).collect();
    fs::create_dir_all(folder.path().join(&deep)).unwrap();
    fs::write(folder.path().join(&deep).join("f"), "x").unwrap();
    let lines = list(&stream(folder.path()));
    assert_eq!(lines.len(), 202);
    assert!(
        lines[201].contains(&format!("{}/f", deep.display())),
        "{}",
        lines[201]
    );
    let error = match open("dir:/nonexistent", &options()) {
        Ok(_) => panic!("opened"),
        Err(error) => chain(&error),
    };
    assert!(error.contains("No such file"), "{error}");
}
