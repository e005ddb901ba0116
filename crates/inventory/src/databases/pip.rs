//! Python: every `NAME.dist-info` with `METADATA` and `RECORD`, and the `.egg-info` of older installers.
//!
//! Formats: <https://packaging.python.org/en/latest/specifications/recording-installed-packages/>

use super::Collector;
use super::stanza::{Stanza, stanzas};
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, NodeId, Package, PackageId};

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    for node in collector.listing.ids() {
        let name = &collector.listing.node(node).name;
        if name.ends_with(b".dist-info") {
            wheel(collector, node)?;
        } else if name.ends_with(b".egg-info") {
            egg(collector, node)?;
        }
    }
    Ok(())
}

fn wheel(collector: &mut Collector<'_>, folder: NodeId) -> Result<(), InventoryError> {
    let Some(metadata) = collector.file_in(folder, b"METADATA") else {
        return Ok(());
    };
    let Some(id) = add(collector, metadata)? else {
        return Ok(());
    };
    let site = collector.listing.node(folder).parent;
    let Some(record) = collector.file_in(folder, b"RECORD") else {
        return Ok(());
    };
    let bytes = collector.read(record)?.unwrap_or_default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let path = first_cell(line);
        if path.is_empty() {
            continue;
        }
        if let Some(file) = collector.listing.find_from(site, &path) {
            collector.claim(file, id);
        }
    }
    Ok(())
}

/// The first cell of a line of CSV; one in quotes may hold commas, and a quote as two.
fn first_cell(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(quoted) = line.strip_prefix(b"\"") else {
        return line
            .split(|byte| *byte == b',')
            .next()
            .unwrap_or_default()
            .to_vec();
    };
    let mut cell = Vec::new();
    let mut bytes = quoted.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'"' && bytes.next_if_eq(&b'"').is_none() {
            break;
        }
        cell.push(byte);
    }
    cell
}

/// A folder with `PKG-INFO`, or a file that is one. Only pip's own lists name the files.
fn egg(collector: &mut Collector<'_>, node: NodeId) -> Result<(), InventoryError> {
    let Some(info) = collector.file_in(node, b"PKG-INFO") else {
        let parent = collector.listing.node(node).parent;
        let name = collector.listing.node(node).name.clone();
        if collector.file_in(parent, &name) == Some(node) {
            add(collector, node)?;
        }
        return Ok(());
    };
    let id = add(collector, info)?;
    let (Some(id), Some(list)) = (id, collector.file_in(node, b"installed-files.txt")) else {
        return Ok(());
    };
    let bytes = collector.read(list)?.unwrap_or_default();
    for path in bytes.split(|byte| *byte == b'\n').filter(|path| !path.is_empty()) {
        if let Some(file) = collector.listing.find_from(node, path) {
            collector.claim(file, id);
        }
    }
    Ok(())
}

fn add(collector: &mut Collector<'_>, metadata: NodeId) -> Result<Option<PackageId>, InventoryError> {
    let bytes = collector.read(metadata)?.unwrap_or_default();
    // Behind the first paragraph comes the description, which may look like anything.
    let Some(head) = stanzas(&bytes).next() else {
        return Ok(None);
    };
    let Some(name) = head.get("Name") else {
        return Ok(None);
    };
    let person = |name: &str, email: &str| {
        head.get(name)
            .and_then(some_field)
            .or_else(|| head.get(email).and_then(some_field))
    };
    let package = Package {
        licences: licences(&head),
        supplier: person("Author", "Author-email").or_else(|| person("Maintainer", "Maintainer-email")),
        homepage: head
            .get("Home-page")
            .and_then(some_field)
            .filter(|page| page.starts_with("http")),
        ..Package::new(
            Ecosystem::Pypi,
            field(name),
            field(head.get("Version").unwrap_or_default()),
            metadata,
        )
    };
    Ok(collector.add(package))
}

/// An expression, else a short text, else classifiers.
fn licences(head: &Stanza<'_>) -> Vec<String> {
    let short = |name: &str| {
        let text = head.get(name).and_then(some_field)?;
        (text.len() < 80 && text != "UNKNOWN").then_some(text)
    };
    if let Some(text) = short("License-Expression").or_else(|| short("License")) {
        return vec![text];
    }
    head.all("Classifier")
        .filter_map(|value| some_field(value)?.strip_prefix("License ::").map(str::to_owned))
        .filter_map(|text| Some(text.rsplit("::").next()?.trim().to_owned()))
        .take(8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::first_cell;
    use crate::sample::Sample;

    #[test]
    fn records_are_csv() {
        for (line, cell) in [
            ("a/b.py,sha256=x,1\r", "a/b.py"),
            ("\"a,\"\"b\"\"\",,", "a,\"b\""),
            ("\"open", "open"),
            ("", ""),
        ] {
            assert_eq!(first_cell(line.as_bytes()), cell.as_bytes(), "{line}");
        }
    }

    #[test]
    fn wheels_and_eggs() {
        let site = "usr/lib/python3/site-packages";
        let sample = Sample::new()
            .file(
                &format!("{site}/six-1.16.dist-info/METADATA"),
                b"Metadata-Version: 2.1\nName: six\nVersion: 1.16\nLicense: MIT\nAuthor: B\nHome-page: https://six\n\nName: x\n",
            )
            .file(
                &format!("{site}/six-1.16.dist-info/RECORD"),
                b"six.py,sha256=a,3\nsix-1.16.dist-info/METADATA,,\n../../../bin/six,,\n../../../../../../../etc/six,,\n",
            )
            .file(&format!("{site}/six.py"), b"1")
            .file("usr/bin/six", b"2")
            .file("etc/six", b"3")
            .file(
                &format!("{site}/Foo_Bar.egg-info/PKG-INFO"),
                b"Name: Foo_Bar\nVersion: 2\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n",
            )
            .file(
                &format!("{site}/Foo_Bar.egg-info/installed-files.txt"),
                b"../foo.py\nPKG-INFO\n",
            )
            .file(&format!("{site}/foo.py"), b"4")
            .file(&format!("{site}/old.egg-info"), b"Name: old\nVersion: 0.1\n")
            .file(&format!("{site}/empty.dist-info/METADATA"), b"")
            .file(&format!("{site}/nothing.dist-info/x"), b"");
        sample.check(&expect_test::expect![[r#"
            pypi Foo_Bar 2 under "MIT License": usr/lib/python3/site-packages/Foo_Bar.egg-info/PKG-INFO usr/lib/python3/site-packages/foo.py
            pypi old 0.1: 
            pypi six 1.16 by "B" at https://six under "MIT": etc/six usr/bin/six usr/lib/python3/site-packages/six-1.16.dist-info/METADATA usr/lib/python3/site-packages/six.py
        "#]]);
    }
}
