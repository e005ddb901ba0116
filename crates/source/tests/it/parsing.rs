//! Any bytes may come: the parsers answer, and never panic. `fuzz/` runs the same entries for longer.

use firebrick_source::{Document, Limits, Platform, Reference, parse_config, parse_document, parse_saved};
use proptest::prelude::*;

use crate::support::{config_json, descriptor, index_json, manifest_json};

proptest! {
    #[test]
    fn documents_survive_any_edit(at in 0usize..2000, byte in any::<u8>(), cut in 0usize..2000) {
        let texts = [
            manifest_json("{}", &[descriptor("application/vnd.oci.image.layer.v1.tar", b"x", r#","annotations":{"a":"b"}"#)]),
            index_json(&[descriptor("application/vnd.oci.image.manifest.v1+json", b"x", r#","platform":{"os":"linux","architecture":"arm"}"#)]),
            config_json("linux/amd64", &[]),
        ];
        for text in texts {
            let mut bytes = text.into_bytes();
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(len - (cut % len).saturating_sub(len / 2));
            let _ = parse_document(&bytes, None, "test", &Limits::default());
            let _ = parse_config(&bytes, "test");
            let _ = parse_saved(&bytes, &Limits::default());
        }
    }

    #[test]
    fn references_survive_any_text(text in "\\PC{0,60}") {
        let _ = text.parse::<Platform>();
        if let Ok(reference) = text.parse::<Reference>() {
            let again: Reference = reference.to_string().parse().unwrap();
            prop_assert_eq!(reference, again);
        }
    }

    #[test]
    fn names_round_trip(host in "([a-z]{1,5}\\.io(:[1-9][0-9]{0,3})?/)?", path in "[a-z]{1,9}(/[a-z0-9]{1,5}){0,2}", tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?") {
        let reference: Reference = format!("docker://{host}{path}{tag}").parse().unwrap();
        let again: Reference = reference.to_string().parse().unwrap();
        prop_assert_eq!(reference, again);
    }
}

#[test]
fn deep_and_wide_json_costs_little() {
    let limits = Limits::default();
    for text in [
        "[".repeat(4 << 20),
        "{\"a\":".repeat(800_000),
        format!("{{\"annotations\":{{{}", "\"\":\"\",".repeat(500_000)),
    ] {
        parse_document(text.as_bytes(), None, "test", &limits).unwrap_err();
    }
    let too_long = " ".repeat((4 << 20) + 1);
    let error = parse_document(too_long.as_bytes(), None, "test", &limits).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

#[test]
fn unknown_members_and_nulls_are_fine() {
    let text = r#"{"schemaVersion":2,"manifests":null,"config":{"digest":"sha256:0","size":1,"annotations":null},"layers":null,"annotations":null,"subject":{},"x":[1]}"#;
    let document = parse_document(
        text.as_bytes(),
        Some("application/json"),
        "test",
        &Limits::default(),
    )
    .unwrap();
    assert!(matches!(document, Document::Manifest(manifest) if manifest.layers.is_empty()));
}
