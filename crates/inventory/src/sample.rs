//! Small images for tests, in memory.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use firebrick_reader::FileType;

use crate::{Contents, Entry, Inventory, Listing, ListingBuilder, printable};

/// An image: paths and what stands there.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    entries: BTreeMap<Vec<Vec<u8>>, Entry>,
    contents: BTreeMap<u32, Vec<u8>>,
    inodes: u32,
}

impl Sample {
    pub(crate) fn new() -> Sample {
        Sample::default()
    }

    pub(crate) fn entry(inode: u32) -> Entry {
        Entry {
            inode,
            file_type: FileType::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            stored: 0,
            target: None,
            device: None,
            xattrs: None,
            layer: None,
        }
    }

    fn put(mut self, path: &[u8], change: impl FnOnce(&mut Entry)) -> Sample {
        self.inodes += 1;
        let mut entry = Sample::entry(self.inodes);
        change(&mut entry);
        let parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        for len in 0..parts.len() {
            if !self.entries.contains_key(&parts[..len]) {
                self.inodes += 1;
                let mut directory = Sample::entry(self.inodes);
                directory.file_type = FileType::Directory;
                directory.mode = 0o755;
                directory.size = 4096;
                directory.stored = 4096;
                self.entries.insert(parts[..len].to_vec(), directory);
            }
        }
        self.entries.insert(parts, entry);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Sample {
        self.raw(path.as_bytes(), content)
    }

    pub(crate) fn raw(self, path: &[u8], content: &[u8]) -> Sample {
        let mut sample = self.put(path, |entry| {
            entry.size = content.len() as u64;
            entry.stored = entry.size.next_multiple_of(4096);
        });
        // The directories that were made on the way have later numbers.
        let inode = sample.at(path).inode;
        sample.contents.insert(inode, content.to_vec());
        sample
    }

    pub(crate) fn program(self, path: &str, content: &[u8]) -> Sample {
        self.file(path, content).change(path, |entry| entry.mode = 0o755)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Sample {
        self.put(path.as_bytes(), |entry| {
            entry.file_type = FileType::Symlink;
            entry.mode = 0o777;
            entry.size = target.len() as u64;
            entry.target = Some(target.as_bytes().into());
        })
    }

    /// Another name for what stands at `target`.
    pub(crate) fn hardlink(mut self, path: &str, target: &str) -> Sample {
        let entry = self.at(target.as_bytes()).clone();
        let inodes = self.inodes;
        self = self.put(path.as_bytes(), |new| *new = entry);
        self.inodes = self.inodes.max(inodes);
        self
    }

    pub(crate) fn change(mut self, path: &str, change: impl FnOnce(&mut Entry)) -> Sample {
        change(self.at(path.as_bytes()));
        self
    }

    fn at(&mut self, path: &[u8]) -> &mut Entry {
        let parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        self.entries.get_mut(&parts).unwrap()
    }

    pub(crate) fn listing(&self) -> Listing {
        let mut builder = ListingBuilder::new();
        for (parts, entry) in &self.entries {
            builder.add(&parts.join(&b'/'), entry.clone()).unwrap();
        }
        builder.finish()
    }

    pub(crate) fn inventory(&self) -> (Listing, Inventory) {
        let listing = self.listing();
        let inventory = Inventory::take(&listing, self).unwrap();
        (listing, inventory)
    }

    /// Compares packages and what they own.
    pub(crate) fn check(&self, expected: &expect_test::Expect) {
        let (listing, inventory) = self.inventory();
        let mut text = String::new();
        for (id, package) in inventory.numbered() {
            text += &format!("{} {} {}", package.ecosystem, package.name, package.version);
            if let Some(architecture) = &package.architecture {
                text += &format!(" {architecture}");
            }
            if let Some((name, version)) = &package.source {
                text += &format!(" of {name}");
                text += &version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
            }
            text += &package
                .supplier
                .as_ref()
                .map(|s| format!(" by {s:?}"))
                .unwrap_or_default();
            text += &package
                .homepage
                .as_ref()
                .map(|h| format!(" at {h}"))
                .unwrap_or_default();
            for (index, licence) in package.licences.iter().enumerate() {
                text += &format!("{}{licence:?}", if index == 0 { " under " } else { " " });
            }
            let owned = listing.ids().filter(|node| inventory.owner(*node) == Some(id));
            let paths: Vec<String> = owned.map(|node| printable(&listing.path(node))).collect();
            text += &format!(": {}\n", paths.join(" "));
        }
        expected.assert_eq(&text);
    }
}

impl Contents for Sample {
    fn read(
        &self,
        inode: u32,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let bytes = self.contents.get(&inode).ok_or(io::ErrorKind::NotFound)?;
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..));
        // In small pieces, so that whoever takes them has to put them together.
        for piece in rest.unwrap_or_default().chunks(7) {
            if take(piece).is_break() {
                break;
            }
        }
        Ok(())
    }
}
