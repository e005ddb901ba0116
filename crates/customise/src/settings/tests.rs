//! Settings over images of all kinds, hostile ones too.

use std::collections::BTreeMap;
use std::io;

use firebrick_tree::{Entry, EntryKind, FileData, LayerIndex, LayerPath, MergeOptions, Metadata, Tree};

use super::*;
use crate::config::ImageJson;
use crate::init::Init;
use crate::plan::{Customised, Request, customise};

/// An image from lines: `etc/` a folder, `a -> b` a link, `etc/passwd = text` a file.
pub(crate) struct Fake {
    tree: Tree,
    contents: BTreeMap<u64, Vec<u8>>,
}

pub(crate) fn image(lines: &[&str]) -> Fake {
    let mut contents = BTreeMap::new();
    let mut entries = Vec::new();
    for line in lines {
        let (path, kind) = match (line.split_once(" = "), line.split_once(" -> ")) {
            (Some((path, text)), _) => {
                let at = contents.len() as u64;
                let bytes = text.replace("\\n", "\n").into_bytes();
                let segment = firebrick_tree::Segment {
                    file_offset: 0,
                    region: firebrick_tree::RegionIndex(0),
                    region_offset: at * 4096,
                    len: bytes.len() as u64,
                };
                let data = FileData {
                    size: bytes.len() as u64,
                    segments: if bytes.is_empty() {
                        Vec::new()
                    } else {
                        vec![segment]
                    },
                };
                contents.insert(at * 4096, bytes);
                (path, EntryKind::File(data))
            }
            (None, Some((path, target))) if target.starts_with("hard:") => (
                path,
                EntryKind::Hardlink(LayerPath::parse(&target.as_bytes()[5..]).unwrap()),
            ),
            (None, Some((path, target))) => (path, EntryKind::Symlink(target.as_bytes().into())),
            (None, None) => (*line, EntryKind::Directory),
        };
        let meta = Metadata {
            mode: if path.ends_with("shadow") { 0o640 } else { 0o644 },
            gid: if path.ends_with("shadow") { 42 } else { 0 },
            ..Metadata::default()
        };
        entries.push(Entry::new(LayerPath::parse(path.as_bytes()).unwrap(), meta, kind));
    }
    let tree = Tree::merge([LayerIndex::new(entries)], &MergeOptions::default()).unwrap();
    Fake { tree, contents }
}

impl Fake {
    pub(crate) fn with<T>(&self, run: impl FnOnce(&Image<'_>) -> T) -> T {
        let read = |data: &FileData| -> io::Result<Vec<u8>> {
            Ok(match data.segments.first() {
                Some(segment) => self.contents[&segment.region_offset].clone(),
                None => Vec::new(),
            })
        };
        run(&Image {
            tree: &self.tree,
            read: &read,
        })
    }

    /// What is laid over it, without what every image gets.
    pub(crate) fn customised(&self, settings: &Settings, init: Init) -> Result<Vec<String>, String> {
        self.with(|image| {
            let json = ImageJson::default();
            let guest: Option<&[u8]> = (init != Init::None).then_some(b"guest");
            let request = Request::new(guest, &json, init);
            let Customised { entries, .. } = customise(&request, settings, image).map_err(|error| {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                format!("{error}{}", source.unwrap_or_default())
            })?;
            Ok(entries.iter().map(shown).filter(|line| !is_ours(line)).collect())
        })
    }
}

fn is_ours(line: &str) -> bool {
    let path = line.split(' ').nth(1).unwrap_or_default();
    [
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "etc",
        "etc/firebrick",
        "etc/firebrick/image.json",
        "usr",
        "usr/lib",
        "sbin",
        "usr/bin",
    ]
    .contains(&path)
        || path.contains("/firebrick-guest")
        || path.contains("firebrick-agent")
        || path.ends_with("lib/firebrick")
        || path.ends_with("overlay-init")
        || path.ends_with("bin/firebrick")
}

fn shown(entry: &crate::plan::Entry<'_>) -> String {
    use crate::plan::EntryKind;
    let path = String::from_utf8_lossy(&entry.path);
    let meta = format!("{:o} {}:{}", entry.mode, entry.owner.0, entry.owner.1);
    match &entry.kind {
        EntryKind::Dir => format!("d {path} {meta}"),
        EntryKind::File(bytes) => format!("f {path} {meta} {:?}", String::from_utf8_lossy(bytes)),
        EntryKind::Symlink(target) => format!("l {path} -> {}", String::from_utf8_lossy(target)),
        EntryKind::Whiteout => format!("w {path}"),
    }
}

fn hash() -> PasswordHash {
    "$6$saltsalt$0123456789012345678901".parse().unwrap()
}

fn user(name: &str) -> NewUser {
    NewUser {
        name: name.parse().unwrap(),
        uid: None,
        group: None,
        groups: Vec::new(),
        home: None,
        shell: None,
    }
}

const ACCOUNTS: [&str; 5] = [
    "etc/",
    "etc/passwd = root:*:0:0:root:/root:/bin/bash\\napp:x:1000:1000::/:/bin/sh",
    "etc/group = root:x:0:\\nvideo:x:44:app\\napp:x:1000:\\nshadow:x:42:\\n",
    "etc/shadow = root:*:19000:0:99999:7:::\\n",
    "etc/gshadow = root:*::\\nvideo:!::app\\n",
];

#[test]
fn a_user_gets_lines_a_group_and_a_folder() {
    let mut settings = Settings {
        users: vec![user("nex")],
        ..Settings::default()
    };
    settings.users[0].groups = vec!["video".parse().unwrap()];
    assert_eq!(
        image(&ACCOUNTS).customised(&settings, Init::None).unwrap(),
        [
            "d home 755 0:0",
            "d home/nex 755 1001:1001",
            "f etc/passwd 644 0:0 \"root:*:0:0:root:/root:/bin/bash\\napp:x:1000:1000::/:/bin/sh\\nnex:x:1001:1001::/home/nex:/bin/sh\\n\"",
            "f etc/group 644 0:0 \"root:x:0:\\nvideo:x:44:app,nex\\napp:x:1000:\\nshadow:x:42:\\nnex:x:1001:\\n\"",
            "f etc/shadow 640 0:42 \"root:*:19000:0:99999:7:::\\nnex:!::0:99999:7:::\\n\"",
            "f etc/gshadow 640 0:42 \"root:*::\\nvideo:!::app,nex\\nnex:!::\\n\"",
        ]
    );
    // Who is there already stays as he is.
    settings.users = vec![user("app")];
    assert_eq!(
        image(&ACCOUNTS).customised(&settings, Init::None).unwrap(),
        [""; 0]
    );
    settings.users[0].uid = Some(7);
    let error = image(&ACCOUNTS).customised(&settings, Init::None).unwrap_err();
    assert_eq!(
        error,
        "cannot set the user app in the image: the user app has number 1000 in the image"
    );
}

#[test]
fn numbers_that_are_taken_and_names_that_are_not_known_are_refused() {
    let mut settings = Settings {
        users: vec![user("new")],
        ..Settings::default()
    };
    settings.users[0].uid = Some(1000);
    let said = |settings: &Settings| image(&ACCOUNTS).customised(settings, Init::None).unwrap_err();
    assert!(said(&settings).ends_with("the user app has number 1000 in the image"));
    settings.users = vec![user("new")];
    settings.users[0].group = Some("staff".to_owned());
    assert!(said(&settings).ends_with("there is no group \"staff\" in the image, and none is added"));
}

#[test]
fn roots_password_is_the_second_field_of_shadow() {
    let settings = Settings {
        root_password: Some(hash()),
        ..Settings::default()
    };
    let entries = image(&ACCOUNTS).customised(&settings, Init::None).unwrap();
    let shadow = format!("f etc/shadow 640 0:42 \"root:{}:19000:0:99999:7:::\\n\"", hash());
    assert!(entries.contains(&shadow), "{entries:?}");
    assert!(
        entries
            .iter()
            .any(|entry| entry.starts_with("f etc/passwd 644 0:0 \"root:x:0:0:")),
        "{entries:?}"
    );
    let bare = image(&["etc/", "etc/passwd = root::0:0::/:/bin/sh\\n"]);
    let entries = bare.customised(&settings, Init::None).unwrap();
    assert_eq!(
        entries[1],
        format!("f etc/shadow 640 0:0 \"root:{}::0:99999:7:::\\n\"", hash())
    );
    let error = image(&[]).customised(&settings, Init::None).unwrap_err();
    assert!(
        error.ends_with("there is no user \"root\" in the image, and none is added"),
        "{error}"
    );
}

#[test]
fn links_lead_nowhere_but_into_the_image() {
    let settings = Settings {
        users: vec![user("nex")],
        hostname: Some("box".parse().unwrap()),
        dns: Some(Dns::Pnp),
        ..Settings::default()
    };
    // Up and out: there is nothing above the root.
    let up = image(&[
        "etc/",
        "etc/passwd -> ../../../../data/passwd",
        "data/",
        "data/passwd = root:x:0:0::/:/bin/sh\\n",
        "etc/hosts -> /data/gone",
    ]);
    let entries = up.customised(&settings, Init::None).unwrap();
    assert!(
        entries
            .iter()
            .any(|entry| entry.starts_with("f data/passwd 644 0:0 \"root:x:0:0::/:/bin/sh\\nnex:")),
        "{entries:?}"
    );
    assert!(
        entries.iter().any(|entry| entry.starts_with("f data/gone 644")),
        "{entries:?}"
    );
    assert!(entries.contains(&"f etc/hostname 644 0:0 \"box\\n\"".to_owned()));
    assert!(entries.contains(&"l etc/resolv.conf -> /proc/net/pnp".to_owned()));
    // Loops, folders and mount points.
    for (odd, told) in [
        (
            &["etc/", "etc/passwd -> passwd"][..],
            "\"/etc/passwd\" is no regular file in the image",
        ),
        (&["etc/", "etc/passwd/"], "\"/etc/passwd\" is no regular file"),
        (
            &["etc/", "etc/passwd -> /proc/self/mem", "proc/", "proc/self/"],
            "which a mounted filesystem hides",
        ),
    ] {
        let error = image(odd).customised(&settings, Init::None).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn odd_account_files_keep_their_lines() {
    let settings = Settings {
        users: vec![user("nex")],
        ..Settings::default()
    };
    let odd = image(&[
        "etc/",
        "etc/passwd = :::\\n\\n+@nis\\nroot\\nx:x:99999999999:0\\ny:y:1000",
        "etc/group = nex:x:notanumber:\\n",
    ]);
    let error = odd.customised(&settings, Init::None).unwrap_err();
    assert!(
        error.ends_with("there is no group \"nex\" in the image, and none is added"),
        "{error}"
    );
    let odd = image(&[
        "etc/",
        "etc/passwd = :::\\n\\n+@nis\\nroot\\nx:x:99999999999:0\\ny:y:1000",
    ]);
    let entries = odd.customised(&settings, Init::None).unwrap();
    let passwd = entries
        .iter()
        .find(|entry| entry.starts_with("f etc/passwd"))
        .unwrap();
    assert!(
        passwd.ends_with(
            "\":::\\n\\n+@nis\\nroot\\nx:x:99999999999:0\\ny:y:1000\\nnex:x:1001:1001::/home/nex:/bin/sh\\n\""
        ),
        "{passwd}"
    );
}

fn file(path: &str, content: Content, owner: Option<&str>) -> NewFile {
    NewFile {
        path: path.to_owned(),
        content,
        mode: None,
        owner: owner.map(|user| Owner {
            user: user.to_owned(),
            group: None,
        }),
    }
}

#[test]
fn files_have_owners_by_name_of_users_that_are_added_too() {
    let settings = Settings {
        users: vec![user("nex")],
        files: vec![
            file("srv/app/run.sh", Content::File(b"x".to_vec()), Some("nex")),
            file("srv/app", Content::Dir, Some("app")),
            file("usr/bin/python", Content::Link("python3".to_owned()), None),
            file(
                "etc/passwd",
                Content::File(b"root:x:0:0::/:/bin/sh\napp:x:7:8::/:\n".to_vec()),
                None,
            ),
        ],
        ..Settings::default()
    };
    let lines = [&ACCOUNTS[..], &["srv/", "usr/", "usr/bin/"]].concat();
    let entries = image(&lines).customised(&settings, Init::None).unwrap();
    for expected in [
        "f srv/app/run.sh 644 1000:1001 \"x\"",
        "d srv/app 755 7:8",
        "l usr/bin/python -> python3",
        "f etc/passwd 644 0:0 \"root:x:0:0::/:/bin/sh\\napp:x:7:8::/:\\nnex:x:1000:1001::/home/nex:/bin/sh\\n\"",
    ] {
        assert!(entries.contains(&expected.to_owned()), "{expected}: {entries:#?}");
    }
    let settings = Settings {
        files: vec![file("usr/bin", Content::File(Vec::new()), None)],
        ..Settings::default()
    };
    let error = image(&lines).customised(&settings, Init::None).unwrap_err();
    assert!(
        error.ends_with("\"/usr/bin\" is a folder in the image, and something else is to be there"),
        "{error}"
    );
}

#[test]
fn consoles_are_each_inits_own() {
    let settings = Settings {
        consoles: vec!["ttyS0".parse().unwrap()],
        ..Settings::default()
    };
    let systemd = image(&[
        "lib/",
        "lib/systemd/",
        "lib/systemd/systemd = x",
        "lib/systemd/system/serial-getty@.service = x",
    ]);
    let entries = systemd.customised(&settings, Init::Systemd).unwrap();
    let link = "l etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service -> /lib/systemd/system/serial-getty@.service";
    assert!(entries.contains(&link.to_owned()), "{entries:?}");
    let busybox = image(&[
        "bin/busybox = x",
        "sbin/getty -> /bin/busybox",
        "sbin/init -> /bin/busybox",
    ]);
    let entries = busybox.customised(&settings, Init::Busybox).unwrap();
    let inittab = entries
        .iter()
        .find(|entry| entry.starts_with("f etc/inittab"))
        .unwrap();
    assert!(
        inittab.ends_with("ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\\n\""),
        "{inittab}"
    );
    let error = busybox.customised(&settings, Init::Firebrick).unwrap_err();
    assert!(error.contains("in this image the guest is PID 1"), "{error}");
    let error = image(&[]).customised(&settings, Init::None).unwrap_err();
    assert!(error.contains("in this image nobody starts the agent"), "{error}");
}

#[test]
fn lists_are_written_as_their_readers_want_them() {
    let settings = Settings {
        modules: vec!["vsock".parse().unwrap(), "loop max_loop=8".parse().unwrap()],
        fstab: vec!["/dev/vda / ext4 defaults 0 1".to_owned()],
        interfaces: vec![Interface::new("eth0", Address::Dhcp).unwrap()],
        dns: Some("1.1.1.1,::1".parse().unwrap()),
        ..Settings::default()
    };
    assert_eq!(
        image(&["etc/"]).customised(&settings, Init::None).unwrap(),
        [
            "f etc/resolv.conf 644 0:0 \"nameserver 1.1.1.1\\nnameserver ::1\\n\"",
            "d etc/network 755 0:0",
            "f etc/network/interfaces 644 0:0 \"auto lo\\niface lo inet loopback\\n\\nauto eth0\\niface eth0 inet dhcp\\n\"",
            "d etc/modules-load.d 755 0:0",
            "f etc/modules-load.d/firebrick.conf 644 0:0 \"vsock\\nloop max_loop=8\\n\"",
            "f etc/fstab 644 0:0 \"/dev/vda / ext4 defaults 0 1\\n\"",
        ]
    );
}

#[test]
fn localhost_is_known_where_the_image_left_that_to_a_container_runtime() {
    let hosts = |lines: &[&str], init| {
        let lines = image(lines).customised(&Settings::default(), init).unwrap();
        let found = lines.into_iter().find(|line| line.contains("hosts"));
        found.unwrap_or_default()
    };
    let text = r#""127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n""#;
    let blank = "etc/hosts = \\n";
    for lines in [&["etc/"][..], &[], &["etc/", blank]] {
        let expected = format!("f etc/hosts 644 0:0 {text}");
        assert_eq!(hosts(lines, Init::Firebrick), expected, "{lines:?}");
        assert_eq!(hosts(lines, Init::None), "", "nothing was asked for");
    }
    // What says something, and what is no file, stays.
    for lines in [
        &["etc/", "etc/hosts = 10.0.0.1 db"][..],
        &["etc/", "etc/hosts -> /run/hosts"],
        &["etc/", "etc/hosts -> loop"],
        &["etc/", "etc/hosts"],
    ] {
        assert_eq!(hosts(lines, Init::Firebrick), "", "{lines:?}");
    }
}
