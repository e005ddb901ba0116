//! apk: `/lib/apk/db/installed`, one-letter fields, a blank line behind each package.
//!
//! Format: <https://wiki.alpinelinux.org/wiki/Apk_spec#Installed_Database_V2>

use super::Collector;
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, NodeId, Package};

/// Where it lies; newer releases keep it below `/usr`.
const DATABASES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    let mut done = None;
    for path in DATABASES {
        let Some(node) = collector.find_file(path.as_bytes()) else {
            continue;
        };
        // One may be a link to the other.
        if done.replace(node) == Some(node) {
            continue;
        }
        let bytes = collector.read(node)?.unwrap_or_default();
        let mut block = Block::new(node);
        for line in bytes.split(|byte| *byte == b'\n') {
            match line.split_at_checked(2) {
                Some((key, value)) => block.line(collector, key, value),
                None => std::mem::replace(&mut block, Block::new(node)).finish(collector),
            }
        }
        block.finish(collector);
    }
    Ok(())
}

/// What one package's lines told so far.
struct Block {
    package: Package,
    /// The directory of the files that follow.
    folder: Vec<u8>,
    files: Vec<NodeId>,
}

impl Block {
    fn new(found_in: NodeId) -> Block {
        Block {
            package: Package::new(Ecosystem::Apk, String::new(), String::new(), found_in),
            folder: Vec::new(),
            files: Vec::new(),
        }
    }

    fn line(&mut self, collector: &Collector<'_>, key: &[u8], value: &[u8]) {
        match key {
            b"P:" => self.package.name = field(value),
            b"V:" => self.package.version = field(value),
            b"A:" => self.package.architecture = some_field(value),
            b"U:" => self.package.homepage = some_field(value),
            b"L:" => self.package.licences = some_field(value).into_iter().collect(),
            b"m:" => self.package.supplier = some_field(value),
            b"o:" => self.package.source = some_field(value).map(|name| (name, None)),
            b"F:" => self.folder = value.to_vec(),
            b"R:" => {
                let path = [&self.folder, &b"/"[..], value].concat();
                self.files.extend(collector.listing.find(&path));
            }
            _ => {}
        }
    }

    fn finish(self, collector: &mut Collector<'_>) {
        if let Some(id) = collector.add(self.package) {
            for node in self.files {
                collector.claim(node, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sample::Sample;

    #[test]
    fn files_are_named_by_folder_and_name() {
        let installed = b"C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nm:A <a@b>\nU:https://musl.libc.org/\nF:lib\n\
            R:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q1x=\n\nP:busybox\nV:1.36\nL:GPL-2.0-only\nF:\nR:init\nF:bin\nR:busybox\nR:gone\n\n\
            P:\nV:1\nF:bin\nR:sh";
        let sample = Sample::new()
            .file("lib/apk/db/installed", installed)
            .file("lib/ld-musl-x86_64.so.1", b"1")
            .file("bin/busybox", b"2")
            .file("init", b"2")
            .link("bin/sh", "/bin/busybox");
        sample.check(&expect_test::expect![[r#"
            apk musl 1.2.5-r0 x86_64 of musl by "A <a@b>" at https://musl.libc.org/ under "MIT": lib/ld-musl-x86_64.so.1
            apk busybox 1.36 under "GPL-2.0-only": bin/busybox init
        "#]]);
    }
}
