//! `oci-archive:`, `docker-archive:` and `tar:`.

use std::fs;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use firebrick_testkit::fixtures::{BUSYBOX, fixture};
use firebrick_testkit::oracle;

use crate::support::{
    LayoutDir, PLATFORM, config_json, gzip, named, noise, open, options, platform, read, recorded, refusal,
    tar,
};

fn save(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.tar");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// A `docker save` of old: one folder per layer, `layer.tar` inside.
struct OldSave {
    builder: tar::Builder<Vec<u8>>,
    manifest: Vec<String>,
}

impl OldSave {
    fn new() -> OldSave {
        OldSave {
            builder: tar::Builder::new(Vec::new()),
            manifest: Vec::new(),
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, name, content).unwrap();
    }

    fn link(&mut self, kind: tar::EntryType, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(kind);
        self.builder.append_link(&mut header, name, target).unwrap();
    }

    /// Adds an image's config and its line in the manifest.
    fn image(&mut self, platform: &str, tags: &str, layers: &[(&str, &[u8])]) {
        let ids: Vec<Digest> = layers.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
        let config = config_json(platform, &ids);
        let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        self.file(&name, config.as_bytes());
        let files: Vec<String> = layers.iter().map(|(file, _)| format!("\"{file}\"")).collect();
        self.manifest.push(format!(
            r#"{{"Config":"{name}","RepoTags":{tags},"Layers":[{}]}}"#,
            files.join(",")
        ));
    }

    fn finish(mut self) -> Vec<u8> {
        let manifest = format!("[{}]", self.manifest.join(","));
        self.file("manifest.json", manifest.as_bytes());
        self.builder.into_inner().unwrap()
    }
}

#[test]
fn oci_archive_is_read_in_place() {
    let layout = LayoutDir::new();
    let layers = [tar(&[("a", &noise(300_000, 1))]), tar(&[("b", b"2")])];
    layout.finish(&[layout.image(PLATFORM, &layers, &named("v1"))]);
    let (_folder, path) = save(&layout.to_tar());
    let mut options = options();
    // Reading in place needs no temporary folder.
    options.temp_dir = "/nonexistent".into();
    for reference in [
        format!("oci-archive:{}", path.display()),
        format!("oci-archive:{}:v1", path.display()),
    ] {
        let image = open(&reference, &options).unwrap();
        for (layer, expected) in image.layers.iter().zip(&layers) {
            assert_eq!(read(layer).unwrap(), gzip(expected));
        }
    }
    let text = refusal(&format!("oci-archive:{}:v2", path.display()), &options);
    assert!(
        text.contains("no image \"v2\"") && text.contains("there is: v1"),
        "{text}"
    );
}

#[test]
fn gzip_archives_are_spooled_and_bounded() {
    let (layout, stored) = LayoutDir::simple();
    let (_folder, path) = save(&gzip(&layout.to_tar()));
    let reference = format!("oci-archive:{}", path.display());
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.temp_dir = temp.path().to_owned();
    let image = open(&reference, &options).unwrap();
    assert_eq!(
        fs::read_dir(temp.path()).unwrap().count(),
        0,
        "the spool file has no name"
    );
    assert_eq!(read(&image.layers[0]).unwrap(), stored);
    options.limits.spool_bytes = 1000;
    assert!(refusal(&reference, &options).contains("over the limit of 1000"));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    options.limits.spool_bytes = u64::MAX;
    assert!(refusal(&reference, &options).contains("cannot decompress"));
}

#[test]
fn other_compressions_are_refused_with_a_way_out() {
    for (magic, name) in [
        (&b"\x28\xb5\x2f\xfd__"[..], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh91A", "bzip2"),
    ] {
        let (_folder, path) = save(magic);
        let text = refusal(&format!("docker-archive:{}", path.display()), &options());
        assert!(text.contains(name) && text.contains("decompress"), "{text}");
    }
}

#[test]
fn old_docker_save_with_links_between_layers() {
    let mut save_file = OldSave::new();
    let (a, b) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    save_file.file("aaa/layer.tar", &a);
    save_file.link(tar::EntryType::Symlink, "bbb/layer.tar", "../aaa/layer.tar");
    save_file.link(tar::EntryType::Link, "ccc/layer.tar", "bbb/layer.tar");
    save_file.file("ddd/layer.tar", &b);
    save_file.image(
        PLATFORM,
        r#"["x:1"]"#,
        &[
            ("aaa/layer.tar", &a),
            ("bbb/layer.tar", &a),
            ("ccc/layer.tar", &a),
            ("ddd/layer.tar", &b),
        ],
    );
    let (_folder, path) = save(&save_file.finish());
    let image = open(&format!("docker-archive:{}", path.display()), &options()).unwrap();
    let bytes: Vec<Vec<u8>> = image.layers.iter().map(|layer| read(layer).unwrap()).collect();
    assert_eq!(bytes, [a.clone(), a.clone(), a.clone(), b]);
    assert_eq!(image.layers[1].diff_id, Some(Digest::of(&a)));
    assert_eq!(image.layers[1].digest, None);
    assert_eq!(image.layers[1].size, Some(a.len() as u64));
}

#[test]
fn several_images_in_one_docker_archive() {
    let mut save_file = OldSave::new();
    let layers = ["a", "b", "c"].map(|name| tar(&[(name, name.as_bytes())]));
    for (layer, tags) in layers
        .iter()
        .zip([r#"["busybox:latest","x.io/y:1"]"#, r#"["other:2"]"#, "null"])
    {
        let name = format!("{}/layer.tar", Digest::of(layer).hex());
        save_file.file(&name, layer);
        save_file.image(PLATFORM, tags, &[(&name, layer)]);
    }
    let (_folder, path) = save(&save_file.finish());
    let at = format!("docker-archive:{}", path.display());
    for (selector, expected) in [
        ("busybox", 0),
        ("busybox:latest", 0),
        ("docker.io/library/busybox:latest", 0),
        ("x.io/y:1", 0),
        ("other:2", 1),
        ("@0", 0),
        ("@2", 2),
    ] {
        let image = open(&format!("{at}:{selector}"), &options()).unwrap();
        assert_eq!(
            image.config.diff_ids,
            [Digest::of(&layers[expected])],
            "{selector}"
        );
    }
    let list = "busybox:latest, x.io/y:1, other:2, @2";
    let text = refusal(&at, &options());
    assert!(text.contains("several images") && text.contains(list), "{text}");
    assert!(text.contains(&format!("e.g. {at}:busybox:latest")), "{text}");
    for selector in ["other", "busybox:2", "@3"] {
        let text = refusal(&format!("{at}:{selector}"), &options());
        assert!(text.contains("no image") && text.contains(list), "{text}");
    }
}

#[test]
fn one_name_for_several_platforms() {
    let mut save_file = OldSave::new();
    let layers = ["linux/arm64", "linux/amd64"].map(|name| (name, tar(&[("p", name.as_bytes())])));
    for (name, layer) in &layers {
        save_file.file(&format!("{name}/layer.tar"), layer);
        save_file.image(name, r#"["x:1"]"#, &[(&format!("{name}/layer.tar"), layer)]);
    }
    let (_folder, path) = save(&save_file.finish());
    let at = format!("docker-archive:{}", path.display());
    let image = open(&at, &options()).unwrap();
    assert_eq!(image.platform, platform("linux/amd64"));
    assert_eq!(image.config.diff_ids, [Digest::of(&layers[1].1)]);
    let mut other = options();
    other.platform = Some(platform("linux/riscv64"));
    let text = refusal(&at, &other);
    assert!(text.contains("there is: linux/arm64, linux/amd64"), "{text}");
}

/// As Docker 25 and later save: an OCI layout, and a manifest.json that names its blobs.
fn oci_style_save(layout: &LayoutDir, layer: &[u8]) -> Vec<u8> {
    let config = config_json(PLATFORM, &[Digest::of(layer)]);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let manifest = format!(
        r#"[{{"Config":"{}","RepoTags":["x:1"],"Layers":["{}"],"LayerSources":{{}}}}]"#,
        blob(config.as_bytes()),
        blob(&gzip(layer))
    );
    fs::write(layout.path().join("manifest.json"), manifest).unwrap();
    layout.to_tar()
}

#[test]
fn oci_style_docker_save_is_verified() {
    let (layout, stored) = LayoutDir::simple();
    let layer = tar(&[("hello", b"world")]);
    let (_folder, path) = save(&oci_style_save(&layout, &layer));
    let at = format!("docker-archive:{}", path.display());
    let image = open(&format!("{at}:x:1"), &options()).unwrap();
    assert_eq!(image.layers[0].digest, Some(Digest::of(&stored)));
    assert_eq!(read(&image.layers[0]).unwrap(), stored);
    // A wrong byte in the layer.
    let mut wrong = stored.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(layout.blob_path(&stored), &wrong).unwrap();
    let (_folder, path) = save(&layout.to_tar());
    let image = open(&format!("docker-archive:{}", path.display()), &options()).unwrap();
    let text = read(&image.layers[0]).unwrap_err().to_string();
    assert!(
        text.contains("layer 0") && text.contains(&Digest::of(&stored).to_string()),
        "{text}"
    );
    assert!(text.contains(&Digest::of(&wrong).to_string()), "{text}");
    // A wrong byte in the config.
    let config = config_json(PLATFORM, &[Digest::of(&layer)]);
    fs::write(layout.blob_path(config.as_bytes()), config.replace("A=1", "A=2")).unwrap();
    let (_folder, path) = save(&layout.to_tar());
    let text = refusal(&format!("docker-archive:{}", path.display()), &options());
    assert!(
        text.contains("the config") && text.contains(&Digest::of(config.as_bytes()).to_string()),
        "{text}"
    );
}

#[test]
fn a_docker_archive_without_manifest_json() {
    let (layout, stored) = LayoutDir::simple();
    let (_folder, path) = save(&layout.to_tar());
    let image = open(&format!("docker-archive:{}", path.display()), &options()).unwrap();
    assert_eq!(read(&image.layers[0]).unwrap(), stored);
    let (_folder, path) = save(&tar(&[("etc/passwd", b"")]));
    for (transport, lacks) in [("docker-archive", "manifest.json"), ("oci-archive", "index.json")] {
        let text = refusal(&format!("{transport}:{}", path.display()), &options());
        assert!(text.contains(lacks) && text.contains("tar:FILE"), "{text}");
    }
}

#[test]
fn hostile_archives() {
    let manifest = |layer: &str, config: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["x:1"],"Layers":["{layer}"]}}]"#)
    };
    let config = config_json(PLATFORM, &[Digest::of(b"")]);
    let with = |layer: &str, more: &dyn Fn(&mut OldSave)| {
        let mut file = OldSave::new();
        file.file("config", config.as_bytes());
        file.file("manifest.json", manifest(layer, "config").as_bytes());
        more(&mut file);
        file.builder.into_inner().unwrap()
    };
    let raw_name = |name: &str| {
        let mut bytes = tar(&[("x", b"")]);
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let sum: u32 = bytes[..512]
            .iter()
            .enumerate()
            .map(|(at, &b)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(b)
                }
            })
            .sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    for (bytes, why) in [
        (with("../../etc/passwd", &|_| ()), "leads outside"),
        (with("/etc/passwd", &|_| ()), "leads outside"),
        (with("missing", &|_| ()), "\"missing\" is missing"),
        (
            with("link", &|file| {
                file.link(tar::EntryType::Symlink, "link", "../../etc/passwd")
            }),
            "leads outside",
        ),
        (
            with("link", &|file| file.link(tar::EntryType::Symlink, "link", "link")),
            "loop of links",
        ),
        (
            with("link", &|file| file.link(tar::EntryType::Link, "link", "gone")),
            "missing",
        ),
        (raw_name("../x"), "leads outside"),
        (raw_name("/x"), "leads outside"),
        (b"not a tar at all".repeat(100), "not a tar header"),
        (Vec::new(), "the archive ends here"),
    ] {
        let (_folder, path) = save(&bytes);
        let text = refusal(&format!("docker-archive:{}", path.display()), &options());
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[test]
fn archives_cut_anywhere_never_open_wrongly() {
    let (layout, stored) = LayoutDir::simple();
    let whole = layout.to_tar();
    let (_folder, path) = save(&whole);
    let reference = format!("oci-archive:{}", path.display());
    for len in (0..whole.len()).step_by(256) {
        fs::write(&path, &whole[..len]).unwrap();
        if let Ok(image) = open(&reference, &options()) {
            // Everything needed lay in front of the cut.
            assert_eq!(read(&image.layers[0]).unwrap(), stored, "cut at {len}");
        }
    }
}

#[test]
fn lying_sizes_and_giant_headers() {
    let set = |bytes: &mut Vec<u8>, at: usize, text: &[u8]| {
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|&b| u32::from(b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    };
    for (kind, size, why) in [
        (b'0', "77777777777\0", "the archive ends inside this entry"),
        (b'0', "9999\0\0\0\0\0\0\0\0", "the size is not a number"),
        (
            b'0',
            "\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f",
            "the size is not a number",
        ),
        (b'S', "00000000000\0", "sparse"),
    ] {
        let mut bytes = tar(&[("x", b"")]);
        set(&mut bytes, 124, size.as_bytes());
        set(&mut bytes, 156, &[kind]);
        let (_folder, path) = save(&bytes);
        let text = refusal(&format!("oci-archive:{}", path.display()), &options());
        assert!(text.contains(why), "{text}");
    }
    // A long name of 2 MiB, all of it there.
    let mut bytes = tar(&[("x", &vec![b'a'; 2 << 20])]);
    set(&mut bytes, 156, b"L");
    let (_folder, path) = save(&bytes);
    let text = refusal(&format!("oci-archive:{}", path.display()), &options());
    assert!(text.contains("over 1 MiB"), "{text}");
    let mut few = options();
    few.limits.archive_entries = 2;
    let (_folder, path) = save(&tar(&[("a", b""), ("b", b""), ("c", b"")]));
    assert!(refusal(&format!("oci-archive:{}", path.display()), &few).contains("too many entries"));
}

#[test]
fn plain_tars_are_one_layer_as_they_are() {
    for bytes in [tar(&[("a", b"1")]), gzip(&tar(&[("a", b"1")]))] {
        let (_folder, path) = save(&bytes);
        let (options, events) = recorded(options());
        let image = open(&format!("tar:{}", path.display()), &options).unwrap();
        assert_eq!(image.layers.len(), 1);
        assert_eq!((image.layers[0].digest, image.layers[0].diff_id), (None, None));
        assert_eq!(image.layers[0].size, Some(bytes.len() as u64));
        assert_eq!(read(&image.layers[0]).unwrap(), bytes);
        assert_eq!(image.platform, platform(PLATFORM));
        assert_eq!(events.lock().unwrap().len(), 1, "{events:?}");
    }
    assert!(refusal("tar:/nonexistent.tar", &options()).contains("/nonexistent.tar"));
}

#[test]
fn docker_daemon_is_answered_with_the_way_round() {
    let text = refusal("docker-daemon:busybox:1", &options());
    assert!(
        text.contains("docker save -o image.tar busybox:1") && text.contains("docker-archive:image.tar"),
        "{text}"
    );
}

/// `skopeo` as an independent writer of both kinds of archive, from a real image.
#[test]
fn archives_that_skopeo_writes() {
    if !oracle::have("skopeo").unwrap() {
        return;
    }
    let Some(busybox) = fixture(BUSYBOX[1]) else {
        return;
    };
    let source = format!("oci:{}", busybox.display());
    let expected = open(&source, &options()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = |to: &str| {
        oracle::run_ok(
            "skopeo",
            [
                "--insecure-policy",
                "copy",
                "-q",
                &format!("{source}:busybox:1.38.0-musl"),
                to,
            ],
        )
        .unwrap();
    };
    let at = |name: &str| -> PathBuf { Path::new(folder.path()).join(name) };
    copy(&format!("oci-archive:{}:v1", at("oci.tar").display()));
    let image = open(&format!("oci-archive:{}:v1", at("oci.tar").display()), &options()).unwrap();
    assert_eq!(
        read(&image.layers[0]).unwrap(),
        read(&expected.layers[0]).unwrap()
    );
    copy(&format!(
        "docker-archive:{}:busybox:1",
        at("docker.tar").display()
    ));
    let image = open(
        &format!("docker-archive:{}:busybox:1", at("docker.tar").display()),
        &options(),
    )
    .unwrap();
    assert_eq!(image.config.cmd, expected.config.cmd);
    // skopeo stores the layer uncompressed, so its digest is the diff ID.
    assert_eq!(
        Some(Digest::of(&read(&image.layers[0]).unwrap())),
        expected.layers[0].diff_id
    );
}
