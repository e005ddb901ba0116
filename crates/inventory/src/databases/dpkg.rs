//! dpkg: `/var/lib/dpkg/status` with a list of paths for each package, or `status.d` as distroless images have it.
//!
//! Lists name paths as packages shipped them; `/bin/ls` may lie in `/usr/bin` now, and a diverted file under another name.
//! Format: <https://manpages.debian.org/bookworm/dpkg/dpkg.1.en.html#FILES>

use std::collections::{HashMap, HashSet};

use super::Collector;
use super::stanza::{Stanza, stanzas};
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, NodeId, Package, PackageId};

/// Licences of one package, at most.
const LICENCES_MAX: usize = 40;

/// Where a path of a package lies that another one diverted: to which path, and on whose account.
type Diversions = HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    if let Some(status) = collector.find_file(b"var/lib/dpkg/status") {
        let diversions = diversions(collector)?;
        let mut lists = HashSet::new();
        let bytes = collector.read(status)?.unwrap_or_default();
        for stanza in stanzas(&bytes) {
            let state = stanza.get("Status").unwrap_or_default();
            // What is left of a removed package is its settings; a half-installed one has its files.
            let is_there = !matches!(
                state.rsplit(|byte| *byte == b' ').next(),
                None | Some(b"not-installed" | b"config-files")
            );
            if let Some(id) = is_there.then(|| add(collector, &stanza, status)).flatten() {
                installed_files(collector, id, &diversions, &mut lists)?;
            }
        }
    }
    if let Some(folder) = collector.find_directory(b"var/lib/dpkg/status.d") {
        for node in collector.listing.children(folder).to_vec() {
            distroless(collector, folder, node)?;
        }
    }
    licences(collector)
}

fn add(collector: &mut Collector<'_>, stanza: &Stanza<'_>, found_in: NodeId) -> Option<PackageId> {
    let version = stanza.get("Version").unwrap_or_default();
    let package = Package {
        architecture: stanza.get("Architecture").and_then(some_field),
        source: stanza.get("Source").and_then(source),
        supplier: stanza.get("Maintainer").and_then(some_field),
        homepage: stanza.get("Homepage").and_then(some_field),
        ..Package::new(
            Ecosystem::Deb,
            field(stanza.get("Package")?),
            field(version),
            found_in,
        )
    };
    collector.add(package)
}

/// `name` or `name (version)`.
fn source(value: &[u8]) -> Option<(String, Option<String>)> {
    let text = some_field(value)?;
    Some(match text.split_once(" (") {
        Some((name, version)) => (name.to_owned(), Some(version.trim_end_matches(')').to_owned())),
        None => (text, None),
    })
}

/// Claims what a package's list names. Each of the `lists` is read once, however many stanzas have the package's name.
fn installed_files(
    collector: &mut Collector<'_>,
    id: PackageId,
    diversions: &Diversions,
    lists: &mut HashSet<NodeId>,
) -> Result<(), InventoryError> {
    let Some(package) = collector.packages.get(id.index()) else {
        return Ok(());
    };
    let name = package.name.clone();
    let architecture = package.architecture.clone().unwrap_or_default();
    let Some(info) = collector.find_directory(b"var/lib/dpkg/info") else {
        return Ok(());
    };
    let list = [format!("{name}:{architecture}.list"), format!("{name}.list")]
        .iter()
        .find_map(|list| collector.file_in(info, list.as_bytes()));
    let Some(list) = list.filter(|list| lists.insert(*list)) else {
        return Ok(());
    };
    let bytes = collector.read(list)?.unwrap_or_default();
    let paths = || bytes.split(|byte| *byte == b'\n').filter(|path| path.len() > 1);
    // What others are in is a directory to the package, though it may be a link here: `/bin`.
    let folders: HashSet<&[u8]> = paths().filter_map(folder_of).collect();
    for path in paths().filter(|path| !folders.contains(path)) {
        let path = match diversions.get(path) {
            Some((to, by)) if *by != name.as_bytes() => to,
            _ => path,
        };
        if let Some(node) = collector.listing.find(path) {
            collector.claim(node, id);
        }
    }
    Ok(())
}

fn folder_of(path: &[u8]) -> Option<&[u8]> {
    path.get(..path.iter().rposition(|byte| *byte == b'/')?)
}

/// Three lines each: from, to, and by which package; `:` for by nobody's.
fn diversions(collector: &mut Collector<'_>) -> Result<Diversions, InventoryError> {
    let file = collector.find_file(b"var/lib/dpkg/diversions");
    let bytes = file.map(|file| collector.read(file)).transpose()?.flatten();
    let bytes = bytes.unwrap_or_default();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let threes = lines.as_chunks::<3>().0.iter();
    Ok(threes
        .map(|[from, to, by]| (from.to_vec(), (to.to_vec(), by.to_vec())))
        .collect())
}

/// A paragraph in a file of its own, with `NAME.md5sums` beside it, which names the package's files.
fn distroless(collector: &mut Collector<'_>, folder: NodeId, node: NodeId) -> Result<(), InventoryError> {
    let name = collector.listing.node(node).name.clone();
    if name.ends_with(b".md5sums") || collector.file_in(folder, &name) != Some(node) {
        return Ok(());
    }
    let bytes = collector.read(node)?.unwrap_or_default();
    let id = stanzas(&bytes)
        .next()
        .and_then(|stanza| add(collector, &stanza, node));
    let sums = [&*name, b".md5sums"].concat();
    let (Some(id), Some(sums)) = (id, collector.file_in(folder, &sums)) else {
        return Ok(());
    };
    let bytes = collector.read(sums)?.unwrap_or_default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let path = line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = path.strip_prefix(b" ").unwrap_or(path);
        if !path.is_empty()
            && let Some(file) = collector.listing.find(path)
        {
            collector.claim(file, id);
        }
    }
    Ok(())
}

/// dpkg's database names no licences; the copyright files do where they are in the form that programs can read
/// (<https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>).
fn licences(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    // Several packages have one file, and each is read once.
    let mut known: HashMap<NodeId, Vec<String>> = HashMap::new();
    for index in 0..collector.packages.len() {
        let Some(package) = collector.packages.get(index) else {
            break;
        };
        if package.ecosystem != Ecosystem::Deb {
            continue;
        }
        let path = format!("usr/share/doc/{}/copyright", package.name);
        let Some(node) = collector.find_file(path.as_bytes()) else {
            continue;
        };
        let licences = match known.get(&node) {
            Some(licences) => licences.clone(),
            None => {
                let licences = licences_in(&collector.read(node)?.unwrap_or_default());
                known.insert(node, licences.clone());
                licences
            }
        };
        if let Some(package) = collector.packages.get_mut(index) {
            package.licences = licences;
        }
    }
    Ok(())
}

fn licences_in(bytes: &[u8]) -> Vec<String> {
    let mut licences: Vec<String> = Vec::new();
    if !bytes.starts_with(b"Format") {
        return licences;
    }
    for stanza in stanzas(bytes) {
        // Paragraphs without files only hold the texts of what others name.
        let of_files = stanza.get("Files").is_some() || stanza.get("Format").is_some();
        let licence = stanza.get("License").and_then(some_field).filter(|_| of_files);
        if let Some(licence) = licence
            && !licences.contains(&licence)
            && licences.len() < LICENCES_MAX
        {
            licences.push(licence);
        }
    }
    licences
}

#[cfg(test)]
mod tests {
    use crate::sample::Sample;

    const STATUS: &str = "\
Package: coreutils
Status: install ok installed
Architecture: amd64
Maintainer: Somebody <s@example.org>
Version: 9.1-1

Package: libc6
Status: install ok unpacked
Architecture: amd64
Multi-Arch: same
Source: glibc (2.36-9)
Version: 2.36-9+deb12u8
Description: GNU C Library
 Package: not-a-package

Package: gone
Status: deinstall ok config-files
Version: 1

Package: dash
Status: install ok installed
Version: 0.5

Version: nameless
";

    #[test]
    fn lists_own_files_where_they_lie() {
        let sample = Sample::new()
            .file("var/lib/dpkg/status", STATUS.as_bytes())
            .file(
                "var/lib/dpkg/info/coreutils.list",
                b"/.\n/bin\n/bin/ls\n/usr/share/doc/x\n/nowhere\n/usr/bin/sh\n",
            )
            .file("var/lib/dpkg/info/libc6:amd64.list", b"/lib/libc.so\n/usr/bin/ls\n")
            .file("var/lib/dpkg/info/gone.list", b"/etc/gone\n")
            .file("var/lib/dpkg/info/dash.list", b"/bin/sh\n")
            .file(
                "var/lib/dpkg/diversions",
                b"/usr/bin/sh\n/usr/bin/sh.distrib\ndash\n",
            )
            .file("usr/bin/ls", b"1")
            .file("usr/bin/sh", b"2")
            .file("usr/bin/sh.distrib", b"3")
            .file("usr/lib/libc.so", b"4")
            .file("etc/gone", b"5")
            .link("bin", "usr/bin")
            .link("lib", "usr/lib")
            .file(
                "usr/share/doc/libc6/copyright",
                b"Format: https://x\nLicense: LGPL-2.1+\n\nFiles: *\nLicense: Expat\n text\n\nLicense: GPL-2\n more\n",
            );
        sample.check(&expect_test::expect![[r#"
            deb coreutils 9.1-1 amd64 by "Somebody <s@example.org>": usr/bin/ls usr/bin/sh.distrib
            deb libc6 2.36-9+deb12u8 amd64 of glibc 2.36-9 under "LGPL-2.1+" "Expat": usr/lib/libc.so
            deb dash 0.5: usr/bin/sh
        "#]]);
    }

    #[test]
    fn distroless_has_a_file_for_each() {
        let sample = Sample::new()
            .file(
                "var/lib/dpkg/status.d/base",
                b"Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
            )
            .file(
                "var/lib/dpkg/status.d/base.md5sums",
                b"0123  etc/motd\nzz  usr/missing\nbroken\n",
            )
            .file("etc/motd", b"1");
        sample.check(&expect_test::expect![[r#"
            deb base-files 12.4 amd64: etc/motd
        "#]]);
    }
}
