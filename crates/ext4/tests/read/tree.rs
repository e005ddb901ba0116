//! Trees as text to compare: one [`Node`] a path, whoever read it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use firebrick_ext4::read::{FileType, Filesystem, InodeNumber, ReadAt};

/// What two readers must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) letter: char,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Not for directories, where the source folder counts its own filesystem's.
    pub(crate) links: u64,
    pub(crate) mtime: i64,
    /// Of a file, or the target of a symbolic link.
    pub(crate) content: Vec<u8>,
}

/// By path without a leading slash. The root, and `lost+found` there, are left out.
pub(crate) type Nodes = BTreeMap<Vec<u8>, Node>;

/// What our reader says.
pub(crate) fn ours<R: ReadAt>(filesystem: &Filesystem<R>) -> Nodes {
    let mut nodes = Nodes::new();
    let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT).unwrap());
    while let Some(visit) = walk.advance().unwrap() {
        if visit.path.is_empty() || visit.path == b"lost+found" {
            continue;
        }
        let stat = visit.inode.stat();
        let mut content = Vec::new();
        match stat.file_type {
            FileType::Regular => {
                let mut file = filesystem.open_file(&visit.inode).unwrap();
                file.read_to_end(&mut content).unwrap();
                assert_eq!(content.len() as u64, stat.size);
            }
            FileType::Symlink => content = filesystem.read_link(&visit.inode).unwrap(),
            _ => {}
        }
        let node = Node {
            letter: stat.file_type.letter(),
            mode: stat.mode.into(),
            uid: stat.uid,
            gid: stat.gid,
            links: if stat.file_type == FileType::Directory {
                0
            } else {
                stat.links.into()
            },
            mtime: stat.mtime.seconds,
            content,
        };
        assert!(nodes.insert(visit.path.to_vec(), node).is_none());
    }
    nodes
}

/// What the host says of a folder.
pub(crate) fn folder(root: &Path) -> Nodes {
    let mut nodes = Nodes::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (letter, content) = match meta.mode() & 0o170_000 {
                0o040_000 => ('d', Vec::new()),
                0o100_000 => ('-', fs::read(&path).unwrap()),
                0o120_000 => ('l', fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()),
                0o010_000 => ('p', Vec::new()),
                other => panic!("{path:?} has type {other:o}"),
            };
            let node = Node {
                letter,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                links: if letter == 'd' { 0 } else { meta.nlink() },
                mtime: meta.mtime(),
                content,
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            nodes.insert(name, node);
            if letter == 'd' {
                todo.push(path);
            }
        }
    }
    nodes
}

/// Fails by the first path that differs, not by megabytes of content.
pub(crate) fn assert_same(found: &Nodes, expected: &Nodes) {
    let names =
        |nodes: &Nodes| -> Vec<String> { nodes.keys().map(|name| name.escape_ascii().to_string()).collect() };
    assert_eq!(names(found), names(expected));
    for (path, node) in expected {
        let brief = |node: &Node| Node {
            content: node.content.iter().take(80).copied().collect(),
            ..node.clone()
        };
        assert_eq!(brief(&found[path]), brief(node), "{}", path.escape_ascii());
    }
    for (path, node) in expected {
        assert!(
            found[path].content == node.content,
            "content of {}",
            path.escape_ascii()
        );
    }
}

/// A folder with something of everything that an unprivileged user can make.
pub(crate) fn varied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for len in [
        0,
        1,
        59,
        60,
        1023,
        1024,
        1025,
        4096,
        4097,
        12 * 1024,
        12 * 1024 + 1,
        300_000,
        1_200_000,
    ] {
        fs::write(root.join(format!("file-{len}")), numbered(len)).unwrap();
    }
    sparse(&root.join("triple-indirect"), &[0, 1 << 20, 70 << 20], 1);
    let every_second: Vec<u64> = (0..2000).map(|index| index * 8192).collect();
    sparse(&root.join("fragmented"), &every_second, 4096);
    File::create(root.join("hole"))
        .unwrap()
        .set_len(5_000_000)
        .unwrap();
    for len in [1, 59, 60, 61, 900] {
        symlink("t".repeat(len), root.join(format!("symlink-{len}"))).unwrap();
    }
    fs::create_dir_all(root.join("a/deep/folder/of/folders")).unwrap();
    fs::hard_link(root.join("file-1025"), root.join("a/deep/second name")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"a/not \xff utf-8\n")), "x").unwrap();
    fs::write(root.join("a").join("n".repeat(255)), "long").unwrap();
    super::image::run(std::process::Command::new("mkfifo").arg(root.join("a/fifo")));
    for (name, mode) in [
        ("a/setuid", 0o4755),
        ("a/sticky", 0o1666),
        ("a/owner-only", 0o400),
    ] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let times =
        fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890));
    File::open(root.join("file-4096"))
        .unwrap()
        .set_times(times)
        .unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for index in 0..700 {
        fs::write(
            root.join(format!("many/{index:03}-{}", "x".repeat(index % 200))),
            "",
        )
        .unwrap();
    }
    folder
}

/// Bytes in which every position is recognisable.
fn numbered(len: usize) -> Vec<u8> {
    (0..).flat_map(u64::to_le_bytes).take(len).collect()
}

/// A file with data at the offsets and holes between.
fn sparse(path: &Path, offsets: &[u64], len: usize) {
    let mut file = File::create(path).unwrap();
    for offset in offsets {
        file.seek(SeekFrom::Start(*offset)).unwrap();
        file.write_all(&vec![u8::try_from(offset % 251).unwrap() | 1; len])
            .unwrap();
    }
}
