//! Databases of packages, in images that anyone may have made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use firebrick_inventory::sbom::{Subject, cyclonedx, spdx};
use firebrick_inventory::{Contents, Entry, Inventory, Listing, ListingBuilder};
use firebrick_reader::FileType;

/// What files of one input are divided by.
const DIVIDER: u8 = 0xff;

/// For each choice, the files that an input's parts become. A last one that ends in `*` takes all of the rest, dividers too.
const FILES: [&[&str]; 8] = [
    &[
        "var/lib/dpkg/status",
        "var/lib/dpkg/info/tool.list",
        "var/lib/dpkg/diversions",
        "usr/share/doc/tool/copyright",
        "etc/os-release",
    ],
    &["var/lib/dpkg/status.d/tool", "var/lib/dpkg/status.d/tool.md5sums"],
    &["lib/apk/db/installed", "etc/os-release"],
    &[
        "usr/lib/python3/six-1.dist-info/METADATA",
        "usr/lib/python3/six-1.dist-info/RECORD",
        "usr/lib/python3/old.egg-info/PKG-INFO",
        "usr/lib/python3/old.egg-info/installed-files.txt",
    ],
    &[
        "app/node_modules/a/package.json",
        "app/node_modules/a/node_modules/@s/b/package.json",
    ],
    &["srv/Cargo.lock", "usr/.crates.toml"],
    &["usr/bin/tool*"],
    &["var/lib/rpm/rpmdb.sqlite*"],
];

/// What databases may name.
const VICTIMS: [&str; 4] = [
    "usr/bin/ls",
    "usr/lib/python3/six.py",
    "etc/motd",
    "app/node_modules/a/x.js",
];

/// An image in memory that counts what is read of it.
struct Memory {
    contents: BTreeMap<u32, Vec<u8>>,
    given: Cell<u64>,
}

impl Contents for Memory {
    fn read(
        &self,
        inode: u32,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let bytes = self.contents.get(&inode).map_or(&[][..], Vec::as_slice);
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..));
        for piece in rest.unwrap_or_default().chunks(4096) {
            self.given.set(self.given.get() + piece.len() as u64);
            if take(piece).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The image whose databases `bytes` are: the first byte chooses which.
fn image(bytes: &[u8]) -> Option<(Listing, Memory)> {
    let (&choice, rest) = bytes.split_first()?;
    let mut files: BTreeMap<&str, &[u8]> = VICTIMS.into_iter().map(|path| (path, &b"x"[..])).collect();
    let mut parts = rest.split(|byte| *byte == DIVIDER);
    for path in FILES[usize::from(choice) % FILES.len()] {
        match path.strip_suffix('*') {
            Some(path) => _ = files.insert(path, rest),
            None => _ = files.insert(path, parts.next().unwrap_or_default()),
        }
    }
    // Names with each of their folders, which come before them.
    let mut entries: BTreeMap<Vec<&str>, Option<&[u8]>> = BTreeMap::new();
    for (path, content) in files {
        let parts: Vec<&str> = path.split('/').collect();
        for len in 0..parts.len() {
            entries.entry(parts[..len].to_vec()).or_insert(None);
        }
        entries.insert(parts, Some(content));
    }
    entries.insert(vec!["bin"], None);
    let (mut builder, mut contents) = (ListingBuilder::new(), BTreeMap::new());
    for (inode, (path, content)) in (1..).zip(&entries) {
        let is_link = *path == ["bin"];
        let file_type = match content {
            Some(_) => FileType::Regular,
            None if is_link => FileType::Symlink,
            None => FileType::Directory,
        };
        let entry = Entry {
            inode,
            file_type,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: content.map_or(0, |content| content.len() as u64),
            stored: 4096,
            target: is_link.then(|| b"usr/bin"[..].into()),
            device: None,
            xattrs: None,
            layer: None,
        };
        builder
            .add(path.join("/").as_bytes(), entry)
            .expect("they are in order");
        contents.extend(content.map(|content| (inode, content.to_vec())));
    }
    let given = Cell::new(0);
    Some((builder.finish(), Memory { contents, given }))
}

/// Takes stock of an image whose databases of packages `bytes` are, and writes bills of materials. Whether it has packages, or
/// remarks.
///
/// # Panics
/// If a promise of the inventory does not hold.
pub fn inventory(bytes: &[u8]) -> bool {
    let Some((listing, memory)) = image(bytes) else {
        return false;
    };
    let inventory =
        Inventory::take(&listing, &memory).expect("memory cannot fail, and what is in databases is no error");
    let all: u64 = memory.contents.values().map(|content| content.len() as u64).sum();
    let given = memory.given.get();
    assert!(given <= 16 * all + (1 << 16), "{given} bytes are read of {all}");
    let mut texts = Vec::new();
    for package in inventory.packages() {
        assert!(!package.name.is_empty());
        assert!(
            memory
                .contents
                .contains_key(&listing.entry(package.found_in).inode)
        );
        texts.extend([&package.name, &package.version]);
        texts.extend(&package.architecture);
        texts.extend(&package.supplier);
        texts.extend(&package.homepage);
        texts.extend(&package.licences);
        if let Some((name, version)) = &package.source {
            texts.push(name);
            texts.extend(version);
        }
    }
    texts.extend(inventory.remarks());
    for text in texts {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    for node in listing.ids() {
        if let Some(owner) = inventory.owner(node) {
            assert!(owner.index() < inventory.packages().len());
            assert_ne!(listing.entry(node).file_type, FileType::Directory);
        }
    }
    let subject = Subject {
        name: "image",
        source: None,
        created: 0,
        tool_version: "1",
    };
    let documents = || {
        [
            spdx(&subject, &listing, &inventory),
            cyclonedx(&subject, &listing, &inventory),
        ]
    };
    for document in documents() {
        let value: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
        assert!(value.is_object());
    }
    assert!(documents() == documents(), "the same bytes each time");
    !inventory.packages().is_empty() || !inventory.remarks().is_empty()
}
