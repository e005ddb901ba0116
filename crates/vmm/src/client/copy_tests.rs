//! What a guest may send that a host must not take.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use firebrick_protocol::agent::Data;
use serde_json::json;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A guest that says `/x` is a folder, and gives this tar of it.
fn guest(tar: Vec<u8>) -> Client {
    guest_with("dir", tar)
}

/// A guest in which `/x` is a file.
fn guest_of_a_file() -> Client {
    guest_with("file", b"new".to_vec())
}

fn guest_with(kind: &'static str, tar: Vec<u8>) -> Client {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
        let say = |message: serde_json::Value| writeln!(&guest, "{message}");
        while let Some(Ok(line)) = lines.next() {
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            let id = request["id"].clone();
            if request["method"] == "stat" {
                let result = json!({"kind": kind, "size": 0, "mode": 493, "uid": 0, "gid": 0, "mtime_us": 0, "links": 2});
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
        &[("good", file, "", b"x"), ("odd", EntryType::new(b'Q'), "", b"")],
    ];
    for entries in hostile {
        let inside = tempfile::tempdir().unwrap();
        let target = inside.path().join("target");
        let copied = guest(packed(entries)).copy_out("/x", &target, LIMIT);
        assert!(copied.is_err(), "{entries:?}");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept", "{entries:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{entries:?}");
        // Not half of it either, and nothing beside.
        assert_eq!(fs::read_dir(inside.path()).unwrap().count(), 0, "{entries:?}");
    }
}

#[test]
fn devices_and_pipes_stay_in_the_guest_and_are_told() {
    use tar::EntryType;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let tar = packed(&[
        ("./device", EntryType::Char, "", b""),
        ("./disk", EntryType::Block, "", b""),
        ("./pi\x1bpe", EntryType::Fifo, "", b""),
        ("./file", EntryType::Regular, "", b"content"),
    ]);
    let copied = guest(tar).copy_out("/x", &target, LIMIT).unwrap();
    let names: Vec<_> = fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    let told = copied.left_out.to_string();
    for name in ["./device", "./disk", "./pi\\u{1b}pe"] {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn of_many_left_out_only_some_are_named() {
    let mut left_out = LeftOut::default();
    assert!(left_out.is_empty());
    for number in 0..1000 {
        left_out.add(format!("p{number}"));
    }
    assert!(!left_out.is_empty());
    let told = left_out.to_string();
    assert!(
        told.contains("\"p7\" and 992 more") && !told.contains("p8"),
        "{told}"
    );
}

/// What is at a place of this host, where a guest's file or folder is to go.
fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn no_device_pipe_socket_or_link_is_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    make_pipe(&place("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
    fs::write(place("file"), "kept").unwrap();
    std::os::unix::fs::symlink("file", place("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", place("dangling")).unwrap();
    let mut names = vec!["pipe", "socket", "link", "dangling"];
    // The null device again, where this user can make one.
    let made = std::process::Command::new("mknod")
        .arg(place("device"))
        .args(["c", "1", "3"])
        .stderr(std::process::Stdio::null())
        .status();
    if made.is_ok_and(|made| made.success()) {
        names.push("device");
    }
    let before: Vec<_> = names
        .iter()
        .map(|name| fs::symlink_metadata(place(name)).unwrap().file_type())
        .collect();
    for (name, before) in names.iter().zip(before) {
        let target = place(name);
        assert!(
            matches!(check_place("/x", &target), Err(CopyError::Taken { .. })),
            "{name}"
        );
        for served in [guest(packed(&[])), guest_of_a_file()] {
            let mut served = served;
            let copied = served.copy_out("/x", &target, LIMIT);
            assert!(
                matches!(copied, Err(CopyError::Taken { .. })),
                "{name}: {copied:?}"
            );
        }
        let after = fs::symlink_metadata(&target).unwrap().file_type();
        assert_eq!(before, after, "{name}");
    }
    assert_eq!(fs::read_to_string(place("file")).unwrap(), "kept");
    // The same by its name in a folder, and in a tree that goes into one.
    let inner = place("x");
    make_pipe(&inner);
    let copied = guest_of_a_file().copy_out("/x", folder.path(), LIMIT);
    assert!(matches!(copied, Err(CopyError::Taken { .. })), "{copied:?}");
    let copied =
        guest(packed(&[("./x", tar::EntryType::Regular, "", b"y")])).copy_out("/.", folder.path(), LIMIT);
    assert!(matches!(copied, Err(CopyError::Taken { .. })), "{copied:?}");
    assert!(fs::symlink_metadata(&inner).unwrap().file_type().is_fifo());
    // A plain file is replaced.
    guest_of_a_file().copy_out("/x", &place("file"), LIMIT).unwrap();
    assert_eq!(fs::read_to_string(place("file")).unwrap(), "new");
}

/// Folders that their owner must not write to, with something in them.
#[test]
fn closed_folders_come_out_closed() {
    use tar::EntryType;
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    add("closed", EntryType::Directory, 0o555, b"");
    add("closed/below", EntryType::Directory, 0o000, b"");
    add("closed/below/file", EntryType::Regular, 0o444, b"content");
    add("closed/late", EntryType::Regular, 0o444, b"content");
    let tar = builder.into_inner().unwrap();
    // Root may write everywhere: let this thread be a user like any other.
    let mut capabilities = rustix::thread::capabilities(None).unwrap();
    let before = capabilities.effective;
    capabilities
        .effective
        .remove(rustix::thread::CapabilitySet::DAC_OVERRIDE);
    rustix::thread::set_capabilities(None, capabilities).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    guest(tar.clone()).copy_out("/x", &target, LIMIT).unwrap();
    guest(tar).copy_out("/.", &there, LIMIT).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    for target in [&target, &there] {
        let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("closed"), 0o555);
        assert_eq!(mode("closed/below"), 0);
        for name in ["closed/below", "closed"] {
            fs::set_permissions(target.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(mode("closed/below/file"), 0o444);
        assert_eq!(
            fs::read_to_string(target.join("closed/below/file")).unwrap(),
            "content"
        );
    }
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
    capabilities.effective = before;
    rustix::thread::set_capabilities(None, capabilities).unwrap();
}

#[test]
fn a_folder_is_packed_without_its_sockets_and_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("deep")).unwrap();
    fs::write(place("deep/file"), "content").unwrap();
    std::os::unix::fs::symlink("deep/file", place("link")).unwrap();
    make_pipe(&place("deep/pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
    let (mut tar, mut left_out) = (Vec::new(), LeftOut::default());
    pack(&mut tar, folder.path(), &mut left_out).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, [".", "deep", "deep/file", "link"]);
    let told = left_out.to_string();
    assert!(told.contains("deep/pipe") && told.contains("/socket"), "{told}");
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
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
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

/// A guest that says yes to everything, gives bytes without end, and takes none beyond its socket's buffer.
fn guest_without_end() -> Client {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(guest.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            let id = &request["id"];
            let result = match request["method"].as_str() {
                Some("stat") => {
                    json!({"kind": "file", "size": 1, "mode": 420, "uid": 0, "gid": 0, "mtime_us": 0, "links": 1})
                }
                Some("status") => {
                    json!({"version": "1", "protocol": 3, "pid1": true, "boottime_us": 1, "boot": [], "jobs": 0, "connections": 1})
                }
                _ => break,
            };
            writeln!(
                &guest,
                "{}",
                json!({"jsonrpc": "2.0", "id": id, "result": result})
            )
            .unwrap();
        }
        let params = json!({"id": 3, "stream": "stdout", "data": Data(vec![7; 1000])});
        let output = json!({"jsonrpc": "2.0", "method": "output", "params": params});
        while writeln!(&guest, "{output}").is_ok() {}
    });
    Client::new(host.into()).unwrap()
}

#[test]
fn a_signal_ends_copying_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let target = folder.path().join("target");
    for is_in in [true, false] {
        let (sender, interrupts) = crate::interrupts::Interrupts::pair().unwrap();
        let mut client = guest_without_end();
        client.heed(Some(&interrupts)).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            sender.send(15);
        });
        let copied = match is_in {
            true => client.copy_in(&large, "/x", LIMIT),
            false => client.copy_out("/x", &target, LIMIT),
        };
        match copied.unwrap_err() {
            CopyError::Guest {
                source: CallError::Interrupted { signal: 15 },
                ..
            } => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_name_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let name = vec![b'n'; (1 << 20) + 1];
    let tar = packed(&[("././@LongLink", tar::EntryType::GNULongName, "", &name)]);
    let copied = guest(tar).copy_out("/x", &target, LIMIT);
    let words = crate::run::in_words(&copied.unwrap_err());
    assert!(words.contains("has a name of 1048577 bytes"), "{words}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
