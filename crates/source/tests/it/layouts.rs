//! `oci:` layouts: names, platforms, nested indexes, links, the real busybox images.

use std::fs;
use std::os::unix::fs::symlink;

use firebrick_digest::Digest;
use firebrick_testkit::fixtures::{BUSYBOX, fixture};

use crate::support::{
    LayoutDir, OCI_LAYER, PLATFORM, config_json, descriptor, for_platform, gzip, manifest_json, named, open,
    options, platform, read, refusal, tar,
};

fn layer(text: &str) -> Vec<u8> {
    tar(&[("who", text.as_bytes())])
}

#[test]
fn one_image_needs_no_name() {
    let (layout, stored) = LayoutDir::simple();
    let image = open(&layout.reference(), &options()).unwrap();
    assert_eq!(image.platform, platform(PLATFORM));
    assert_eq!(image.config.env, ["A=1"]);
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.layers[0].size, Some(stored.len() as u64));
    assert_eq!(image.layers[0].digest, Some(Digest::of(&stored)));
    assert_eq!(image.layers[0].diff_id, Some(image.config.diff_ids[0]));
    assert_eq!(
        image.layers[0].media_type.as_deref(),
        Some("application/vnd.oci.image.layer.v1.tar+gzip")
    );
    assert_eq!(read(&image.layers[0]).unwrap(), stored);
}

#[test]
fn layers_are_read_in_several_threads_at_once() {
    let layout = LayoutDir::new();
    let layers: Vec<Vec<u8>> = (0..8).map(|n| layer(&n.to_string().repeat(100_000))).collect();
    layout.finish(&[layout.image(PLATFORM, &layers, "")]);
    let image = open(&layout.reference(), &options()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            for (layer, expected) in image.layers.iter().zip(&layers) {
                scope.spawn(|| assert_eq!(read(layer).unwrap(), gzip(expected)));
            }
        }
    });
}

#[test]
fn names_choose_and_errors_list_them() {
    let layout = LayoutDir::new();
    layout.finish(&[
        layout.image(PLATFORM, &[layer("a")], &named("busybox:1.38-musl")),
        layout.image(PLATFORM, &[layer("b")], &named("v2")),
        layout.image(PLATFORM, &[layer("c")], ""),
    ]);
    let digest_of = |reference: &str| open(reference, &options()).unwrap().config.diff_ids[0];
    let at = layout.reference();
    assert_eq!(
        digest_of(&format!("{at}:busybox:1.38-musl")),
        Digest::of(&layer("a"))
    );
    assert_eq!(digest_of(&format!("{at}:1.38-musl")), Digest::of(&layer("a")));
    assert_eq!(digest_of(&format!("{at}:v2")), Digest::of(&layer("b")));
    let ambiguous = refusal(&at, &options());
    let unnamed = ambiguous
        .split("@sha256:")
        .nth(1)
        .unwrap()
        .get(..64)
        .unwrap()
        .to_owned();
    assert!(
        ambiguous.contains("several images") && ambiguous.contains("busybox:1.38-musl, v2"),
        "{ambiguous}"
    );
    assert!(
        ambiguous.contains(&format!("e.g. {at}:@sha256:{unnamed}")),
        "{ambiguous}"
    );
    assert_eq!(
        digest_of(&format!("{at}:@sha256:{unnamed}")),
        Digest::of(&layer("c"))
    );
    let missing = refusal(&format!("{at}:v3"), &options());
    assert!(
        missing.contains("no image \"v3\"") && missing.contains("busybox:1.38-musl, v2"),
        "{missing}"
    );
}

#[test]
fn a_tag_that_ends_two_names_is_ambiguous() {
    let layout = LayoutDir::new();
    layout.finish(&[
        layout.image(PLATFORM, &[layer("a")], &named("x.io/a:v1")),
        layout.image(PLATFORM, &[layer("b")], &named("x.io/b:v1")),
    ]);
    let text = refusal(&format!("{}:v1", layout.reference()), &options());
    assert!(text.contains("x.io/a:v1, x.io/b:v1"), "{text}");
}

#[test]
fn platforms_of_an_index() {
    let layout = LayoutDir::new();
    let platforms = [
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/arm64/v8",
        "windows/amd64",
    ];
    let images: Vec<String> = platforms
        .iter()
        .map(|text| layout.image(text, &[layer(text)], &for_platform(text)))
        .collect();
    let attestation = layout.image(
        "unknown/unknown",
        &[layer("attestation")],
        r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
    );
    let inner = layout.index(&[images, vec![attestation]].concat(), &named("multi"));
    // An index in an index.
    layout.finish(&[layout.index(&[inner], "")]);
    for (wanted, expected) in [
        ("linux/amd64", Some("linux/amd64")),
        ("linux/arm", Some("linux/arm/v7")),
        ("linux/arm/v6", Some("linux/arm/v6")),
        ("linux/arm/v8", Some("linux/arm/v7")),
        ("linux/arm64", Some("linux/arm64/v8")),
        ("linux/arm/v5", None),
        ("linux/s390x", None),
    ] {
        let mut options = options();
        options.platform = Some(platform(wanted));
        match expected {
            Some(expected) => {
                let image = open(&layout.reference(), &options).unwrap();
                assert_eq!(image.platform.to_string(), expected);
                assert_eq!(image.config.diff_ids, [Digest::of(&layer(expected))], "{wanted}");
            }
            None => {
                let text = refusal(&layout.reference(), &options);
                let list = "linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, windows/amd64";
                assert!(
                    text.contains(wanted) && text.contains(list) && text.contains("--platform"),
                    "{text}"
                );
                assert!(!text.contains("unknown"), "{text}");
            }
        }
    }
}

#[test]
fn platforms_that_only_configs_name() {
    let layout = LayoutDir::new();
    layout.finish(&[
        layout.image("linux/arm64", &[layer("arm64")], &named("x")),
        layout.image("linux/amd64", &[layer("amd64")], &named("x")),
    ]);
    let image = open(&layout.reference(), &options()).unwrap();
    assert_eq!(image.config.diff_ids, [Digest::of(&layer("amd64"))]);
    let mut other = options();
    other.platform = Some(platform("linux/riscv64"));
    let text = refusal(&format!("{}:x", layout.reference()), &other);
    assert!(text.contains("linux/amd64, linux/arm64"), "{text}");
}

#[test]
fn an_index_that_lies_about_the_platform_is_not_believed() {
    let layout = LayoutDir::new();
    layout.finish(&[layout.image("linux/arm64", &[layer("a")], &for_platform(PLATFORM))]);
    let text = refusal(&layout.reference(), &options());
    assert!(
        text.contains("no image for linux/amd64; there is: linux/arm64"),
        "{text}"
    );
}

#[test]
fn docker_media_types_and_all_compressions() {
    let layout = LayoutDir::new();
    let layers = [
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            gzip(&layer("a")),
        ),
        ("application/vnd.docker.image.rootfs.diff.tar", layer("b")),
        ("application/vnd.oci.image.layer.v1.tar+zstd", layer("c")),
        (OCI_LAYER, layer("d")),
    ];
    let config = config_json(
        PLATFORM,
        &["a", "b", "c", "d"].map(|text| Digest::of(&layer(text))),
    );
    let descriptors: Vec<String> = layers
        .iter()
        .map(|(media, bytes)| descriptor(media, bytes, ""))
        .collect();
    let manifest = manifest_json(&config, &descriptors)
        .replace("vnd.oci.image.manifest.v1", "vnd.docker.distribution.manifest.v2")
        .replace("vnd.oci.image.config.v1", "vnd.docker.container.image.v1");
    layers.iter().for_each(|(_, bytes)| layout.put(bytes));
    layout.put(config.as_bytes());
    layout.put(manifest.as_bytes());
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    layout.finish(&[descriptor(media_type, manifest.as_bytes(), "")]);
    let image = open(&layout.reference(), &options()).unwrap();
    for (layer, (_, bytes)) in image.layers.iter().zip(&layers) {
        assert_eq!(read(layer).unwrap(), *bytes);
    }
}

#[test]
fn blobs_may_be_links_inside_the_layout_only() {
    let (layout, stored) = LayoutDir::simple();
    let blob = layout.blob_path(&stored);
    let pool = layout.path().join("pool");
    fs::create_dir(&pool).unwrap();
    fs::rename(&blob, pool.join("layer")).unwrap();
    for target in [
        "../../pool/layer".into(),
        pool.canonicalize().unwrap().join("layer"),
    ] {
        symlink(&target, &blob).unwrap();
        let image = open(&layout.reference(), &options()).unwrap();
        assert_eq!(read(&image.layers[0]).unwrap(), stored, "{target:?}");
        fs::remove_file(&blob).unwrap();
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("layer"), &stored).unwrap();
    let depth = layout.path().canonicalize().unwrap().components().count() + 1;
    let relative = "../".repeat(depth)
        + outside
            .path()
            .join("layer")
            .to_str()
            .unwrap()
            .trim_start_matches('/');
    for target in [outside.path().join("layer"), relative.into()] {
        symlink(&target, &blob).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), stored, "the link itself is good");
        let text = refusal(&layout.reference(), &options());
        assert!(text.contains("leads outside"), "{target:?}: {text}");
        fs::remove_file(&blob).unwrap();
    }
}

#[test]
fn a_pipe_in_a_blobs_place_does_not_hang_us() {
    let (layout, stored) = LayoutDir::simple();
    fs::remove_file(layout.blob_path(&stored)).unwrap();
    let status = std::process::Command::new("mkfifo")
        .arg(layout.blob_path(&stored))
        .status();
    assert!(status.unwrap().success());
    let text = refusal(&layout.reference(), &options());
    assert!(text.contains("not a regular file"), "{text}");
}

#[test]
fn what_is_missing_is_named() {
    let (layout, stored) = LayoutDir::simple();
    fs::remove_file(layout.blob_path(&stored)).unwrap();
    let text = refusal(&layout.reference(), &options());
    assert!(
        text.contains("layer 0") && text.contains(&Digest::of(&stored).hex()),
        "{text}"
    );
    layout.finish(&[]);
    assert!(refusal(&layout.reference(), &options()).contains("holds no image"));
    let empty = tempfile::tempdir().unwrap();
    let text = refusal(&format!("oci:{}", empty.path().display()), &options());
    assert!(text.contains("\"index.json\" is missing"), "{text}");
    assert!(
        text.contains(&format!("is dir:{}", empty.path().display())),
        "{text}"
    );
    assert!(refusal("oci:/nonexistent", &options()).contains("cannot open \"/nonexistent\""));
}

#[test]
fn real_busybox_images() {
    for name in BUSYBOX {
        let Some(path) = fixture(name) else { continue };
        let mut options = options();
        let is_arm = name.ends_with("arm64v8");
        if is_arm {
            let text = refusal(&format!("oci:{}", path.display()), &options);
            assert!(text.contains("linux/arm64/v8"), "{text}");
            options.platform = Some(platform("linux/arm64"));
        }
        let image = open(&format!("oci:{}", path.display()), &options).unwrap();
        assert_eq!(image.config.cmd, ["sh"], "{name}");
        let bytes = read(&image.layers[0]).unwrap();
        assert_eq!(Some(Digest::of(&bytes)), image.layers[0].digest);
        let tag = if name.contains("glibc") {
            "1.38.0-glibc"
        } else {
            "1.38.0-musl"
        };
        let tagged = open(&format!("oci:{}:busybox:{tag}", path.display()), &options).unwrap();
        assert_eq!(tagged.manifest_digest, image.manifest_digest);
    }
}
