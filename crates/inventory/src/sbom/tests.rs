//! Documents of a small image; real ones are judged by others in the tests of the command.

use serde_json::Value;

use super::*;
use crate::sample::Sample;

fn subject() -> Subject<'static> {
    Subject {
        name: "demo",
        source: Some("sha256:01"),
        created: 1_709_208_000,
        tool_version: "0.1.0",
    }
}

fn sample() -> Sample {
    Sample::new()
        .file("etc/os-release", b"ID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME=\"Alpine \\\"Linux\"\n")
        .file(
            "lib/apk/db/installed",
            b"P:a\nV:1\nL:MIT AND GPL-2.0-only\n\nP:b\nV:2\nL:custom thing\n\nP:c\nV:3\nL:ISC\nU:https://c.example\n\nP:d\nV:4\n",
        )
}

#[test]
fn spdx_names_every_package_once() {
    let (listing, inventory) = sample().inventory();
    let bytes = spdx(&subject(), &listing, &inventory);
    assert_eq!(bytes, spdx(&subject(), &listing, &inventory));
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(document["creationInfo"]["created"], "2024-02-29T12:00:00Z");
    let packages = document["packages"].as_array().unwrap();
    let declared: Vec<&Value> = packages
        .iter()
        .map(|package| &package["licenseDeclared"])
        .collect();
    assert_eq!(
        declared,
        [
            "NOASSERTION",
            "(MIT AND GPL-2.0-only)",
            "LicenseRef-custom-thing-9ab207f73493",
            "ISC",
            "NOASSERTION"
        ]
    );
    assert_eq!(
        packages[1]["externalRefs"][0]["referenceLocator"],
        "pkg:apk/alpine/a@1?distro=alpine-3.20.3"
    );
    assert_eq!(document["hasExtractedLicensingInfos"][0]["name"], "custom thing");
    assert_eq!(document["relationships"].as_array().unwrap().len(), 5);
    let other = Subject {
        created: 0,
        ..subject()
    };
    let other: Value = serde_json::from_slice(&spdx(&other, &listing, &inventory)).unwrap();
    assert_ne!(other["documentNamespace"], document["documentNamespace"]);
}

#[test]
fn cyclonedx_says_licences_in_its_own_way() {
    let (listing, inventory) = sample().inventory();
    let document: Value = serde_json::from_slice(&cyclonedx(&subject(), &listing, &inventory)).unwrap();
    let licences: Vec<String> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["licenses"].to_string())
        .collect();
    assert_eq!(
        licences,
        [
            "null",
            r#"[{"expression":"MIT AND GPL-2.0-only"}]"#,
            r#"[{"license":{"name":"custom thing"}}]"#,
            r#"[{"license":{"id":"ISC"}}]"#,
            "null"
        ]
    );
    let serial = document["serialNumber"].as_str().unwrap();
    assert_eq!((serial.len(), &serial[23..24]), (45, "8"));
}

#[test]
fn times_are_written_as_rfc_3339() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (1_709_208_000, "2024-02-29T12:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (i64::MAX, "9999-12-31T23:59:59Z"),
        (i64::MIN, "0001-01-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(seconds), text);
    }
}
