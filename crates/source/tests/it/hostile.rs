//! Input that lies: a clear error, in bounded memory, before much is done.

use std::fs;

use firebrick_digest::Digest;

use crate::support::{
    LayoutDir, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, PLATFORM, config_json, descriptor, gzip, index_json,
    manifest_json, open, options, read, refusal, tar,
};

/// A layout whose manifest is `edit`ed after its layers are there.
fn edited(edit: impl Fn(&str) -> String) -> LayoutDir {
    let layout = LayoutDir::new();
    let layer = tar(&[("hello", b"world")]);
    let stored = gzip(&layer);
    let config = config_json(PLATFORM, &[Digest::of(&layer)]);
    let manifest = edit(&manifest_json(
        &config,
        &[descriptor(&format!("{OCI_LAYER}+gzip"), &stored, "")],
    ));
    layout.put(&stored);
    layout.put(config.as_bytes());
    layout.put(manifest.as_bytes());
    layout.finish(&[descriptor(OCI_MANIFEST, manifest.as_bytes(), "")]);
    layout
}

fn refused(edit: impl Fn(&str) -> String, why: &str) {
    let text = refusal(&edited(edit).reference(), &options());
    assert!(text.contains(why), "{text}");
}

#[test]
fn a_wrong_manifest_or_config_is_named() {
    for part in ["manifest", "config"] {
        let (layout, stored) = LayoutDir::simple();
        for entry in fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let is_manifest = bytes.windows(9).any(|window| window == b"\"layers\":");
            if bytes != stored && is_manifest == (part == "manifest") {
                let wrong = String::from_utf8(bytes.clone())
                    .unwrap()
                    .replacen("sha256", "sha25x", 1);
                fs::write(&path, &wrong).unwrap();
                let text = refusal(&layout.reference(), &options());
                let (expected, found) = (Digest::of(&bytes), Digest::of(wrong.as_bytes()));
                assert!(text.contains(part), "{text}");
                assert!(
                    text.contains(&format!("digest is {found}, expected {expected}")),
                    "{text}"
                );
                fs::write(&path, [&bytes[..], b" "].concat()).unwrap();
                let text = refusal(&layout.reference(), &options());
                assert!(text.contains(&format!("expected {}", bytes.len())), "{text}");
                fs::write(&path, &bytes).unwrap();
            }
        }
        open(&layout.reference(), &options()).unwrap();
    }
}

#[test]
fn a_wrong_layer_is_named_with_expected_and_found() {
    let layout = LayoutDir::new();
    let layers: Vec<Vec<u8>> = (0..3).map(|n| tar(&[("n", &[n; 5000])])).collect();
    layout.finish(&[layout.image(PLATFORM, &layers, "")]);
    let stored = gzip(&layers[1]);
    let mut wrong = stored.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for (bytes, said) in [
        (
            wrong.clone(),
            format!(
                "digest is {}, expected {}",
                Digest::of(&wrong),
                Digest::of(&stored)
            ),
        ),
        (
            stored[..9].to_vec(),
            format!("length is 9 bytes, expected {}", stored.len()),
        ),
        (
            [&stored[..], b"x"].concat(),
            format!("length is at least {} bytes, expected", stored.len() + 1),
        ),
    ] {
        fs::write(layout.blob_path(&stored), bytes).unwrap();
        let image = open(&layout.reference(), &options()).unwrap();
        read(&image.layers[0]).unwrap();
        read(&image.layers[2]).unwrap();
        let error = read(&image.layers[1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("layer 1 ({})", Digest::of(&stored))),
            "{text}"
        );
        assert!(text.contains(&said), "{text}");
    }
}

#[test]
fn sizes_over_the_limits_are_refused_unread() {
    // The config's size is believed only as far as the limit; nothing of that size exists.
    refused(
        |manifest| manifest.replacen("\"size\":", "\"size\":1000000000", 1),
        "over the limit of 4194304",
    );
    let layout = LayoutDir::new();
    let huge = format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1073741824}}"#,
        Digest::of(b"huge")
    );
    layout.finish(&[huge]);
    let text = refusal(&layout.reference(), &options());
    assert!(text.contains("1073741824, over the limit"), "{text}");
    // A gigabyte of JSON that takes no room on disk.
    let file = fs::File::create(layout.path().join("index.json")).unwrap();
    file.set_len(1 << 30).unwrap();
    let text = refusal(&layout.reference(), &options());
    assert!(
        text.contains("the image index") && text.contains("over the limit"),
        "{text}"
    );
}

#[test]
fn limits_can_be_changed() {
    let (layout, _) = LayoutDir::simple();
    let mut narrow = options();
    narrow.limits.manifest_bytes = 100;
    assert!(refusal(&layout.reference(), &narrow).contains("over the limit of 100"));
    let mut few = options();
    few.limits.layers = 0;
    assert!(refusal(&layout.reference(), &few).contains("its number of layers is 1, over the limit of 0"));
}

#[test]
fn too_many_layers() {
    let layer = descriptor(OCI_LAYER, b"", "");
    let many = vec![layer; 1001].join(",");
    refused(
        |manifest| {
            let (head, _) = manifest.split_once("\"layers\":[").unwrap();
            format!("{head}\"layers\":[{many}]}}")
        },
        "its number of layers is 1001",
    );
}

#[test]
fn layers_and_diff_ids_must_agree() {
    refused(
        |manifest| {
            let (head, _) = manifest.split_once("\"layers\":[").unwrap();
            format!("{head}\"layers\":[]}}")
        },
        "the manifest has 0 layers, but the config has 1 diff IDs",
    );
}

#[test]
fn foreign_encrypted_and_unknown_layers() {
    for (media_type, why) in [
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "non-distributable (foreign)",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "non-distributable (foreign)",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "not supported",
        ),
        ("application/wasm", "not supported"),
    ] {
        refused(
            |manifest| manifest.replace("application/vnd.oci.image.layer.v1.tar+gzip", media_type),
            why,
        );
        refused(
            |manifest| manifest.replace("application/vnd.oci.image.layer.v1.tar+gzip", media_type),
            "layer 0",
        );
    }
}

#[test]
fn artifacts_are_no_images() {
    refused(
        |manifest| manifest.replace("vnd.oci.image.config.v1", "vnd.cncf.helm.config.v1"),
        "the config has media type",
    );
}

#[test]
fn other_digests_are_unsupported_and_nonsense_is_no_path() {
    for digest in ["sha512:0000", "sha256:../../../../etc/passwd", ""] {
        let layout = LayoutDir::new();
        layout.finish(&[format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":3}}"#
        )]);
        let text = refusal(&layout.reference(), &options());
        assert!(text.contains("only sha256 is supported"), "{text}");
    }
}

#[test]
fn schema_1_is_refused_with_a_way_out() {
    let (layout, _) = LayoutDir::simple();
    let old = br#"{"schemaVersion":1,"name":"library/x","tag":"1","fsLayers":[],"history":[]}"#;
    layout.put(old);
    for media_type in [
        OCI_MANIFEST,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ] {
        layout.finish(&[descriptor(media_type, old, "")]);
        let text = refusal(&layout.reference(), &options());
        assert!(text.contains("schema 1") && text.contains("skopeo"), "{text}");
    }
}

#[test]
fn a_document_is_one_thing_only() {
    let both = manifest_json("{}", &[]).replacen("\"config\"", "\"manifests\":[],\"config\"", 1);
    let (layout, _) = LayoutDir::simple();
    layout.put(both.as_bytes());
    layout.finish(&[descriptor(OCI_MANIFEST, both.as_bytes(), "")]);
    assert!(refusal(&layout.reference(), &options()).contains("both a manifest and an index"));
    let index = index_json(&[]);
    layout.put(index.as_bytes());
    layout.finish(&[descriptor(OCI_MANIFEST, index.as_bytes(), "")]);
    assert!(refusal(&layout.reference(), &options()).contains("media type does not fit"));
}

#[test]
fn indexes_in_indexes_end() {
    let (layout, _) = LayoutDir::simple();
    let mut inner = layout.image(PLATFORM, &[tar(&[])], "");
    for _ in 0..3 {
        inner = layout.index(&[inner], "");
    }
    layout.finish(std::slice::from_ref(&inner));
    open(&layout.reference(), &options()).unwrap();
    layout.finish(&[layout.index(&[inner], "")]);
    let text = refusal(&layout.reference(), &options());
    assert!(
        text.contains("its depth of indexes in indexes is 5, over the limit of 4"),
        "{text}"
    );
}

#[test]
fn an_index_that_names_itself_ends() {
    // Its digest cannot be right, but whoever writes a layout can try; the depth is looked at first.
    let (layout, _) = LayoutDir::simple();
    let own = Digest::of(b"own");
    let descriptor = format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{own}","size":300}}"#);
    let index = format!("{:300}", index_json(std::slice::from_ref(&descriptor)));
    fs::write(layout.path().join("blobs/sha256").join(own.hex()), index).unwrap();
    layout.finish(&[descriptor]);
    let text = refusal(&layout.reference(), &options());
    assert!(
        text.contains("the image index") && text.contains("expected"),
        "{text}"
    );
}

#[test]
fn wide_indexes_end() {
    let (layout, _) = LayoutDir::simple();
    let inner: Vec<String> = (0..101)
        .map(|n| layout.index(&[], &format!(r#","x":{n}"#)))
        .collect();
    layout.finish(&[layout.index(&inner, "")]);
    let text = refusal(&layout.reference(), &options());
    assert!(text.contains("the number of documents to read is 101"), "{text}");
}

/// Whoever writes an image must not write to the terminal, nor fill it.
fn tame(text: &str) {
    assert!(text.len() < 2000, "{} bytes of message", text.len());
    assert!(!text.chars().any(|c| c.is_control()), "{text:?}");
}

#[test]
fn messages_quote_little_and_move_no_cursor() {
    let long = "x".repeat(3 << 20);
    let hostile = format!("\\u001b[2J\\r{long}");
    // Where a number, an object, a known word is wanted.
    for (from, to) in [
        ("\"schemaVersion\":2", format!("\"schemaVersion\":\"{hostile}\"")),
        ("\"size\":", format!("\"size\":\"{hostile}\",\"x\":")),
        ("\"digest\":\"", format!("\"digest\":\"{hostile}")),
        (OCI_MANIFEST, hostile.clone()),
        ("application/vnd.oci.image.config.v1+json", hostile.clone()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", hostile.clone()),
    ] {
        let layout = edited(|manifest| manifest.replacen(from, &to, 1));
        if from != OCI_MANIFEST {
            tame(&refusal(&layout.reference(), &options()));
        }
        let (layout, _) = LayoutDir::simple();
        let index = fs::read_to_string(layout.path().join("index.json")).unwrap();
        fs::write(layout.path().join("index.json"), index.replacen(from, &to, 1)).unwrap();
        if index.contains(from) {
            tame(&refusal(&layout.reference(), &options()));
        }
    }
    // What the choice is between.
    let layout = LayoutDir::new();
    let names = ["a", "b"]
        .map(|name| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}{hostile}"}}"#));
    let images = names.map(|name| layout.image(PLATFORM, &[tar(&[])], &name));
    layout.finish(&images[..1]);
    tame(&refusal(&format!("{}:c", layout.reference()), &options()));
    let platform = format!(r#","platform":{{"os":"linux","architecture":"{hostile}"}}"#);
    layout.finish(&[layout.image(PLATFORM, &[tar(&[])], &platform)]);
    tame(&refusal(&layout.reference(), &options()));
}

#[test]
fn messages_of_archives_are_tame_too() {
    let hostile = format!("\\u001b[2J\\r{}", "x".repeat(3 << 20));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("save.tar");
    for manifest in [
        format!(r#"[{{"Config":"{hostile}","RepoTags":null,"Layers":[]}}]"#),
        format!(r#"[{{"Config":"../{hostile}","RepoTags":null,"Layers":[]}}]"#),
        format!(r#"[{{"Config":"c","RepoTags":["a"]}},{{"Config":"c","RepoTags":["{hostile}"]}}]"#),
        format!(r#"[{{"Config":1,"{hostile}":2}}]"#),
        format!(r#"[{{"Config":["{hostile}"]}}]"#),
        format!(r#"[{{"Config":"c","Layers":"{hostile}"}}]"#),
    ] {
        fs::write(&path, tar(&[("manifest.json", manifest.as_bytes())])).unwrap();
        tame(&refusal(
            &format!("docker-archive:{}", path.display()),
            &options(),
        ));
    }
}
