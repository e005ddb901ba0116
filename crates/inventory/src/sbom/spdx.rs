//! SPDX 2.3 as JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use std::collections::BTreeMap;

use firebrick_digest::Digest;
use serde_json::{Value, json};

use super::{Licences, Subject, found_in, identity, licences, package_key, rfc3339, to_bytes, url};
use crate::{Ecosystem, Inventory, Listing, Package};

/// The document's own name for the image.
const IMAGE: &str = "SPDXRef-Image";

/// An inventory as an SPDX document.
pub fn spdx(subject: &Subject<'_>, listing: &Listing, inventory: &Inventory) -> Vec<u8> {
    let identity = identity(subject, inventory, "SPDX-2.3");
    let mut unlisted = BTreeMap::new();
    let mut packages = vec![image(subject, inventory)];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": IMAGE,
    })];
    for package in inventory.packages() {
        let id = format!("SPDXRef-Package-{}", package_key(package, inventory.release()));
        relationships.push(json!({
            "spdxElementId": IMAGE,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id,
        }));
        packages.push(one(package, &id, listing, inventory, &mut unlisted));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("urn:firebrick:spdx:{}", identity.hex()),
        "creationInfo": {
            "created": rfc3339(subject.created),
            "creators": [format!("Tool: firebrick-{}", subject.tool_version)],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if !unlisted.is_empty() {
        let texts = unlisted.iter().map(|(id, text)| {
            json!({ "licenseId": id, "name": text, "extractedText": format!("As the image's database of packages names it: {text}") })
        });
        document["hasExtractedLicensingInfos"] = Value::Array(texts.collect());
    }
    to_bytes(&document)
}

fn image(subject: &Subject<'_>, inventory: &Inventory) -> Value {
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": subject.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
    });
    if let Some(source) = subject.source {
        image["versionInfo"] = json!(source);
    }
    if let Some(name) = inventory
        .release()
        .and_then(|release| release.pretty_name.as_ref())
    {
        image["summary"] = json!(name);
    }
    image
}

fn one(
    package: &Package,
    id: &str,
    listing: &Listing,
    inventory: &Inventory,
    unlisted: &mut BTreeMap<String, String>,
) -> Value {
    let mut object = json!({
        "SPDXID": id,
        "name": package.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared(package, unlisted),
        "copyrightText": "NOASSERTION",
        "sourceInfo": format!("{}: named by {}", package.ecosystem, found_in(listing, package)),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": url(package, inventory.release()),
        }],
    });
    if !package.version.is_empty() {
        object["versionInfo"] = json!(package.version);
    }
    if let Some(supplier) = &package.supplier {
        // Debian and Alpine have people for that; who else made something may be either.
        let kind = match package.ecosystem {
            Ecosystem::Rpm => "Organization",
            _ => "Person",
        };
        object["supplier"] = json!(format!("{kind}: {supplier}"));
    }
    if let Some(homepage) = package.homepage.as_ref().filter(|page| is_plain_url(page)) {
        object["homepage"] = json!(homepage);
    }
    object
}

/// An address that needs no escapes.
fn is_plain_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#@!$&'()*+,;=%".contains(&byte);
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()) && rest.bytes().all(good))
}

/// All licences together; those that SPDX has no name for get one here.
fn declared(package: &Package, unlisted: &mut BTreeMap<String, String>) -> String {
    let Licences::Known(licences) = licences(package) else {
        return "NOASSERTION".to_owned();
    };
    let parts: Vec<String> = licences
        .into_iter()
        .map(|(text, expression)| match expression {
            Some(expression) if expression.contains(' ') && !expression.starts_with('(') => {
                format!("({expression})")
            }
            Some(expression) => expression,
            None => {
                let id = reference(&text);
                unlisted.insert(id.clone(), text);
                id
            }
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|part| seen.insert(part.clone()))
        .collect();
    parts.join(" AND ")
}

/// A name for a licence that has none: what can stand in it, and a digest that tells it from others.
fn reference(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || character == '.' {
                character
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    match plain == text {
        true => format!("LicenseRef-{plain}"),
        false => format!("LicenseRef-{plain}-{}", Digest::of(text.as_bytes()).short()),
    }
}
