//! What a guest may send that a host must not take.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use firebrick_protocol::agent::Data;
use serde_json::json;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A guest that says `/x` is a folder, and gives this tar of it.
fn guest(tar: Vec<u8>) -> Client {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
        let say = |message: serde_json::Value| writeln!(&guest, "{message}");
        while let Some(Ok(line)) = lines.next() {
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            let id = request["id"].clone();
            if request["method"] == "stat" {
                let result = json!({"kind": "dir", "size": 0, "mode": 493, "uid": 0, "gid": 0, "mtime_us": 0, "links": 2});
                say(json!({"jsonrpc": "2.0", "id": id, "result": result})).unwrap();
                continue;
            }
            if request["method"] == "status" {
                // Of before bytes went as they are.
                let result = json!({"version": "1", "protocol": 2, "pid1": true, "boottime_us": 1, "boot": [], "jobs": 0, "connections": 1});
                say(json!({"jsonrpc": "2.0", "id": id, "result": result})).unwrap();
                continue;
            }
            assert!(request["params"]["raw"].is_null(), "{request}");
            for piece in tar.chunks(10_000) {
                let params = json!({"id": id, "stream": "stdout", "data": Data(piece.to_vec())});
                if say(json!({"jsonrpc": "2.0", "method": "output", "params": params})).is_err() {
                    return;
                }
            }
            let _ = say(json!({"jsonrpc": "2.0", "id": id, "result": {"bytes": 0, "entries": 1}}));
        }
    });
    Client::new(host.into()).unwrap()
}

/// Name, type, link's target, content.
type Entry<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

/// A tar with names that no honest program writes.
fn packed(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4777);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn nothing_is_made_outside_of_the_folder() {
    use tar::EntryType;
    let file = EntryType::Regular;
    let outside = tempfile::tempdir().unwrap();
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    let out = outside.path().to_str().unwrap();
    let kept_name = kept.to_str().unwrap();
    let hostile: &[&[Entry<'_>]] = &[
        &[("../evil", file, "", b"x")],
        &[("a/../../evil", file, "", b"x")],
        &[
            ("way", EntryType::Symlink, out, b""),
            ("way/evil", file, "", b"x"),
        ],
        &[("up", EntryType::Symlink, "..", b""), ("up/evil", file, "", b"x")],
        &[
            ("hard", EntryType::Link, kept_name, b""),
            ("hard", file, "", b"changed"),
        ],
        &[("device", EntryType::Char, "", b"")],
        &[("pipe", EntryType::Fifo, "", b"")],
    ];
    for entries in hostile {
        let inside = tempfile::tempdir().unwrap();
        let target = inside.path().join("target");
        let copied = guest(packed(entries)).copy_out("/x", &target, LIMIT);
        assert!(copied.is_err(), "{entries:?}");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept", "{entries:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{entries:?}");
        assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 1, "{entries:?}");
    }
}

#[test]
fn special_bits_stay_in_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let tar = packed(&[("./file", tar::EntryType::Regular, "", b"content")]);
    guest(tar).copy_out("/x", &target, LIMIT).unwrap();
    let meta = fs::metadata(target.join("file")).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o7000), (7, 0));
}

#[test]
fn a_tar_that_is_none_is_an_error() {
    for tar in [
        b"x".repeat(5000),
        packed(&[("a", tar::EntryType::Regular, "", &[1; 3000])])[..1500].to_vec(),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let copied = guest(tar).copy_out("/x", &folder.path().join("target"), LIMIT);
        assert!(copied.is_err());
    }
}

#[test]
fn a_guest_that_takes_no_more_of_a_folder_says_why() {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            let errno = match request["method"].as_str() {
                Some("stat") => ENOENT,
                Some("put") => 28, // ENOSPC
                // Its protocol is asked for, too; an old agent does not know it.
                Some("status") => 0,
                _ => continue,
            };
            let error = json!({"code": -32603, "message": "cannot", "data": {"errno": errno}});
            let _ = writeln!(
                &guest,
                "{}",
                json!({"jsonrpc": "2.0", "id": request["id"], "error": error})
            );
        }
    });
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(folder.path().join(name), vec![7; 1 << 20]).unwrap();
    }
    let copied = Client::new(host.into())
        .unwrap()
        .copy_in(folder.path(), "/x", LIMIT);
    match copied.unwrap_err() {
        CopyError::Guest { source, .. } => assert_eq!(source.guest_errno(), Some(28), "{source:?}"),
        other => panic!("{other:?}"),
    }
}
