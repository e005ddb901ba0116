//! CycloneDX 1.6 as JSON (<https://cyclonedx.org/docs/1.6/json/>).

use serde_json::{Value, json};

use super::{Licences, Subject, found_in, identity, licences, package_key, rfc3339, to_bytes, url};
use crate::{Inventory, Listing, Package, licence};

/// An inventory as a CycloneDX document.
pub fn cyclonedx(subject: &Subject<'_>, listing: &Listing, inventory: &Inventory) -> Vec<u8> {
    let identity = identity(subject, inventory, "CycloneDX-1.6");
    let mut image = json!({
        "type": "container",
        "bom-ref": "image",
        "name": subject.name,
    });
    if let Some(source) = subject.source {
        image["version"] = json!(source);
    }
    let mut components: Vec<Value> = Vec::new();
    if let Some(release) = inventory.release() {
        let mut system = json!({
            "type": "operating-system",
            "bom-ref": "operating-system",
            "name": release.id,
        });
        if let Some(version) = &release.version {
            system["version"] = json!(version);
        }
        if let Some(name) = &release.pretty_name {
            system["description"] = json!(name);
        }
        components.push(system);
    }
    components.extend(
        inventory
            .packages()
            .iter()
            .map(|package| one(package, listing, inventory)),
    );
    to_bytes(&json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(identity.as_bytes())),
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(subject.created),
            "tools": { "components": [{
                "type": "application",
                "name": "firebrick",
                "version": subject.tool_version,
            }]},
            "component": image,
        },
        "components": components,
    }))
}

fn one(package: &Package, listing: &Listing, inventory: &Inventory) -> Value {
    let mut object = json!({
        "type": "library",
        "bom-ref": package_key(package, inventory.release()),
        "name": package.name,
        "purl": url(package, inventory.release()),
        "properties": [
            { "name": "firebrick:found-in", "value": found_in(listing, package) },
        ],
    });
    if !package.version.is_empty() {
        object["version"] = json!(package.version);
    }
    if let Some(supplier) = &package.supplier {
        object["supplier"] = json!({ "name": supplier });
    }
    if let Some(homepage) = &package.homepage
        && homepage
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`[]".contains(&byte))
    {
        object["externalReferences"] = json!([{ "type": "website", "url": homepage }]);
    }
    if let Licences::Known(licences) = licences(package) {
        object["licenses"] = choice(&licences);
    }
    object
}

/// One expression where all are, which the format wants alone; else each by itself.
fn choice(licences: &[(String, Option<String>)]) -> Value {
    let expressions: Vec<&str> = licences.iter().filter_map(|(_, one)| one.as_deref()).collect();
    if expressions.len() == licences.len() && !expressions.iter().all(|one| licence::is_one(one)) {
        let parts: Vec<String> = match expressions.as_slice() {
            [one] => vec![(*one).to_owned()],
            many => many
                .iter()
                .map(|one| {
                    if one.contains(' ') {
                        format!("({one})")
                    } else {
                        (*one).to_owned()
                    }
                })
                .collect(),
        };
        return json!([{ "expression": parts.join(" AND ") }]);
    }
    let each = licences.iter().map(|(text, expression)| match expression {
        Some(one) if licence::is_one(one) => json!({ "license": { "id": one } }),
        _ => json!({ "license": { "name": text } }),
    });
    Value::Array(each.collect())
}

/// A UUID made of a digest (version 8, which is for such).
fn uuid(digest: &[u8; 32]) -> String {
    let mut text = String::new();
    for (index, byte) in digest.iter().take(16).enumerate() {
        let byte = match index {
            6 => (byte & 0x0f) | 0x80,
            8 => (byte & 0x3f) | 0x80,
            _ => *byte,
        };
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
