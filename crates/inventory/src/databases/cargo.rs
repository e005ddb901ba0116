//! Rust: the list of crates that `cargo auditable` puts into programs, lock files, and what `cargo install` noted.
//!
//! Formats: <https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>,
//! <https://doc.rust-lang.org/cargo/guide/cargo-toml-vs-cargo-lock.html>

use std::io::Read as _;

use firebrick_reader::FileType;
use serde_json::Value;

use super::Collector;
use super::elf::section;
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, Listing, NodeId, Package, PackageId};

/// Longest list of crates after decompression, in bytes.
const LIST_MAX: u64 = 16 << 20;

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    let listing = collector.listing;
    for node in listing.ids() {
        let entry = listing.entry(node);
        if entry.file_type != FileType::Regular {
            continue;
        }
        match &*listing.node(node).name {
            b"Cargo.lock" if !is_a_source(listing, node) => lock_file(collector, node)?,
            b".crates.toml" => installed(collector, node)?,
            _ if entry.mode & 0o111 != 0 && entry.size > 64 && listing.is_first(node) => {
                program(collector, node)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Lock files of crates that cargo has unpacked say what their authors used, not what is here.
fn is_a_source(listing: &Listing, node: NodeId) -> bool {
    let mut names = listing.ancestors(node).map(|id| &*listing.node(id).name);
    names.any(|name| matches!(name, b"registry" | b"checkouts" | b"vendor"))
}

fn program(collector: &mut Collector<'_>, node: NodeId) -> Result<(), InventoryError> {
    let Some(compressed) = section(collector, node, b".dep-v0")? else {
        return Ok(());
    };
    let mut json = Vec::new();
    let decoder = flate2::read::ZlibDecoder::new(compressed.as_slice());
    let read = decoder.take(LIST_MAX).read_to_end(&mut json);
    let list: Value = match read.map(|_| serde_json::from_slice(&json)) {
        Ok(Ok(list)) => list,
        // Whatever it is, it is no list of crates.
        _ => return Ok(()),
    };
    let crates = list["packages"].as_array().map_or(&[][..], Vec::as_slice);
    for one in crates.iter().filter(|one| one["kind"] != "build") {
        let (Some(name), Some(version)) = (one["name"].as_str(), one["version"].as_str()) else {
            continue;
        };
        let id = add(collector, name.as_bytes(), version.as_bytes(), node);
        if let (Some(id), Some(true)) = (id, one["root"].as_bool()) {
            collector.claim(node, id);
        }
    }
    Ok(())
}

fn add(collector: &mut Collector<'_>, name: &[u8], version: &[u8], found_in: NodeId) -> Option<PackageId> {
    collector.add(Package::new(
        Ecosystem::Cargo,
        field(name),
        field(version),
        found_in,
    ))
}

/// A lock file is TOML, always in the one form that cargo writes: a line for each field.
fn lock_file(collector: &mut Collector<'_>, node: NodeId) -> Result<(), InventoryError> {
    let bytes = collector.read(node)?.unwrap_or_default();
    let (mut name, mut in_package) = (None, false);
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"[") {
            in_package = line == b"[[package]]";
            name = None;
        } else if let Some(value) = value_of(line, b"name").filter(|_| in_package) {
            name = Some(value);
        } else if let Some(version) = value_of(line, b"version")
            && let Some(name) = name.take()
        {
            add(collector, name, version, node);
        }
    }
    Ok(())
}

/// The text in `key = "text"`.
fn value_of<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(key)?.trim_ascii().strip_prefix(b"=")?;
    value.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// `"NAME VERSION (SOURCE)" = ["PROGRAM", …]`, in the folder that has `bin/`.
fn installed(collector: &mut Collector<'_>, node: NodeId) -> Result<(), InventoryError> {
    let bytes = collector.read(node)?.unwrap_or_default();
    let folder = collector.listing.node(node).parent;
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((spec, programs)) = split_spec(line) else {
            continue;
        };
        let mut words = spec.split(|byte| *byte == b' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(id) = add(collector, name, version, node) else {
            continue;
        };
        for program in programs.split(|byte| *byte == b'"').skip(1).step_by(2) {
            let path = [b"bin/", program].concat();
            if some_field(program).is_some()
                && let Some(file) = collector.listing.find_from(folder, &path)
            {
                collector.claim(file, id);
            }
        }
    }
    Ok(())
}

fn split_spec(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some((rest.get(..end)?, rest.get(end.checked_add(1)?..)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::sample::Sample;

    /// A program with a section of this name.
    fn elf(name: &[u8], section: &[u8]) -> Vec<u8> {
        let names = [b"\0.shstrtab\0", name, b"\0"].concat();
        let table = 64 + section.len() + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        file.extend_from_slice(section);
        file.extend_from_slice(&names);
        let mut header = |name: u32, offset: usize, size: usize| {
            let mut bytes = [0; 64];
            bytes[..4].copy_from_slice(&name.to_le_bytes());
            bytes[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            bytes[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&bytes);
        };
        header(0, 0, 0);
        header(11, 64, section.len());
        header(1, 64 + section.len(), names.len());
        file
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn programs_lock_files_and_what_was_installed() {
        let list = br#"{"packages": [{"name": "app", "version": "0.1.0", "root": true, "source": "local"},
            {"name": "serde", "version": "1.0.2"}, {"name": "cc", "version": "1.1.0", "kind": "build"}, {"name": 7}]}"#;
        let lock = b"version = 4\n\n[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"registry+x\"\n\n\
            [[package]]\nname = \"serde\"\nversion = \"1.0.2\"\n\n[metadata]\nname = \"not\"\nversion = \"1\"\n";
        let noted = b"[v1]\n\"rg 14.1.0 (registry+https://x)\" = [\n    \"rg\",\n]\n\"fd 9.0.0 (path)\" = [\"fd\", \"../../etc/x\"]\n";
        let sample = Sample::new()
            .program("usr/local/bin/app", &elf(b".dep-v0", &zlib(list)))
            .program("usr/local/bin/other", &elf(b".dep-v1", &zlib(list)))
            .program("usr/local/bin/torn", &elf(b".dep-v0", b"not zlib"))
            .program("usr/local/bin/short", &elf(b".dep-v0", &zlib(list))[..70])
            .file("srv/app/Cargo.lock", lock)
            .file(
                "root/.cargo/registry/src/y/Cargo.lock",
                b"[[package]]\nname = \"y\"\nversion = \"1\"\n",
            )
            .file("root/.cargo/.crates.toml", noted)
            .program("root/.cargo/bin/fd", b"x");
        sample.check(&expect_test::expect![[r#"
            cargo rg 14.1.0: 
            cargo fd 9.0.0: root/.cargo/bin/fd
            cargo libc 0.2.1: 
            cargo serde 1.0.2: 
            cargo app 0.1.0: usr/local/bin/app
        "#]]);
    }
}
