//! Node.js: each folder below a `node_modules` that has a `package.json`. It owns what is in it, up to the next one.

use serde_json::Value;

use super::Collector;
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, Listing, NodeId, Package, PackageId};

/// Longest `package.json` that is read, in bytes.
const MANIFEST_MAX: u64 = 1 << 20;

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    let listing = collector.listing;
    // The packages that the walk is in, the innermost last.
    let mut inside: Vec<(NodeId, PackageId)> = Vec::new();
    for node in listing.ids() {
        while inside
            .last()
            .is_some_and(|(folder, _)| !listing.is_below(node, *folder))
        {
            inside.pop();
        }
        if is_package(listing, node)
            && let Some(id) = add(collector, node)?
        {
            inside.push((node, id));
        }
        if let Some((_, id)) = inside.last() {
            collector.claim(node, *id);
        }
    }
    Ok(())
}

/// Whether a node stands where packages do: `node_modules/NAME` or `node_modules/@SCOPE/NAME`.
fn is_package(listing: &Listing, node: NodeId) -> bool {
    let name = |id: NodeId| &*listing.node(id).name;
    let own = name(node);
    if own.starts_with(b".") || own.starts_with(b"@") {
        return false;
    }
    let parent = listing.node(node).parent;
    match name(parent) {
        b"node_modules" => true,
        scope if scope.starts_with(b"@") => name(listing.node(parent).parent) == b"node_modules",
        _ => false,
    }
}

fn add(collector: &mut Collector<'_>, folder: NodeId) -> Result<Option<PackageId>, InventoryError> {
    let Some(manifest) = collector.file_in(folder, b"package.json") else {
        return Ok(None);
    };
    if collector.listing.entry(manifest).size > MANIFEST_MAX {
        return Ok(None);
    }
    let bytes = collector.read(manifest)?.unwrap_or_default();
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(None);
    };
    let text = |value: &Value| value.as_str().and_then(|text| some_field(text.as_bytes()));
    let Some(name) = text(&value["name"]) else {
        return Ok(None);
    };
    let of_object = |value: &Value, key: &str| text(value).or_else(|| text(&value[key]));
    let mut licences: Vec<String> = of_object(&value["license"], "type").into_iter().collect();
    if licences.is_empty() {
        let list = value["licenses"].as_array().map_or(&[][..], Vec::as_slice);
        licences.extend(list.iter().filter_map(|one| of_object(one, "type")).take(8));
    }
    let package = Package {
        licences,
        supplier: of_object(&value["author"], "name"),
        homepage: text(&value["homepage"]).filter(|page| page.starts_with("http")),
        ..Package::new(
            Ecosystem::Npm,
            field(name.as_bytes()),
            text(&value["version"]).unwrap_or_default(),
            manifest,
        )
    };
    Ok(collector.add(package))
}

#[cfg(test)]
mod tests {
    use crate::sample::Sample;

    #[test]
    fn folders_own_what_is_in_them() {
        let sample = Sample::new()
            .file(
                "app/node_modules/a/package.json",
                br#"{"name": "a", "version": "1.0.0", "license": "MIT", "author": {"name": "me"}}"#,
            )
            .file("app/node_modules/a/lib/x.js", b"1")
            .file(
                "app/node_modules/a/node_modules/@s/b/package.json",
                br#"{"name": "@s/b", "version": "2.0.0", "licenses": [{"type": "ISC"}, "MIT"], "homepage": "javascript:alert(1)"}"#,
            )
            .file("app/node_modules/a/node_modules/@s/b/y.js", b"2")
            .file("app/node_modules/a/z.js", b"3")
            .file("app/node_modules/broken/package.json", b"{\"name\": ")
            .file("app/node_modules/.bin/a", b"4")
            .file("app/package.json", br#"{"name": "app"}"#);
        sample.check(&expect_test::expect![[r#"
            npm a 1.0.0 by "me" under "MIT": app/node_modules/a/lib/x.js app/node_modules/a/package.json app/node_modules/a/z.js
            npm @s/b 2.0.0 under "ISC" "MIT": app/node_modules/a/node_modules/@s/b/package.json app/node_modules/a/node_modules/@s/b/y.js
        "#]]);
    }
}
