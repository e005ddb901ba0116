//! Images to boot, built by firebrick itself from real roots and judged by `e2fsck` before anyone boots them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_build::{Request, build};
use firebrick_customise::{ImageJson, Init, RunConfig, plan, to_tar};
use firebrick_source::{OciImage, Reference, open};
use firebrick_testkit::fixtures::{ALPINE, BUSYBOX, fixture};
use firebrick_testkit::layers::Layer;
use firebrick_testkit::layers::oci::{Blob, Compression, Options, write_layout_of_blobs};
use firebrick_testkit::oracle;
use firebrick_tree::{Timestamp, Tree};
use firebrick_vmm::Arch;
use serde_json::Value;

/// An image that firebrick built; gone when this is dropped.
pub(crate) struct Image {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

/// A layer in the text form of the test kit.
pub(crate) fn layer(text: &str) -> Vec<u8> {
    firebrick_testkit::layers::tar::to_tar(&text.parse::<Layer>().expect("a layer"))
}

/// The guest binary of this workspace.
pub(crate) fn guest() -> Vec<u8> {
    guest_for(Arch::X86_64)
}

/// The same for another processor.
pub(crate) fn guest_for(arch: Arch) -> Vec<u8> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let triple = format!("{arch}-unknown-linux-gnu");
    let path = firebrick_embed::build_guest_for(&triple, target).expect("the guest builds");
    std::fs::read(path).expect("the guest was built")
}

/// Alpine with this `config` object in its OCI config, and maybe more layers; `None` without the fixtures.
pub(crate) fn alpine(config: Value, more: &[Vec<u8>]) -> Option<Image> {
    let mut root = Vec::new();
    let file = std::fs::File::open(fixture(ALPINE[1])?).expect("the fixture is readable");
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut root)
        .expect("a tar.gz");
    Some(of_tars(&[&[root], more].concat(), config))
}

/// The smallest root there is here.
pub(crate) fn any(config: Value) -> Option<Image> {
    alpine(config.clone(), &[]).or_else(|| debian(config, &[]))
}

/// Busybox as its OCI layout has it; `None` without the fixtures.
pub(crate) fn busybox() -> Option<Image> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let reference = Reference::OciLayout {
        path: fixture(BUSYBOX[1])?,
        selector: None,
    };
    Some(of_reference(dir, &reference))
}

/// A Debian root with Python and systemd; the root is made once per target folder. `None` only where oracles are left out.
pub(crate) fn debian(config: Value, more: &[Vec<u8>]) -> Option<Image> {
    if !oracle::have("mmdebstrap").expect("mmdebstrap") {
        return None;
    }
    let root = std::fs::read(debian_root()).expect("the root was made");
    Some(of_tars(&[&[root], more].concat(), config))
}

/// Makes the root's tar. Tests of several processes may want it at once: one makes it, the others wait.
fn debian_root() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (tar, part) = (
        folder.join("debian-root.tar"),
        folder.join("debian-root.part.tar"),
    );
    let lock = std::fs::File::create(folder.join("debian-root.lock")).expect("the lock");
    lock.lock().expect("the lock");
    if !tar.exists() {
        let status = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .args(["--include=python3-minimal,systemd-sysv,udev", "bookworm"])
            .arg(&part)
            .env("SOURCE_DATE_EPOCH", "1735689600")
            .status()
            .expect("mmdebstrap (Debian package mmdebstrap)");
        assert!(status.success(), "mmdebstrap: {status}");
        std::fs::rename(&part, &tar).expect("the tar gets its name");
    }
    tar
}

fn of_tars(tars: &[Vec<u8>], config: Value) -> Image {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let layout = dir.path().join("layout");
    let options = Options {
        config,
        ..Options::default()
    };
    let blobs: Vec<Blob> = tars
        .iter()
        .map(|tar| Blob::of_tar(tar, Compression::None))
        .collect();
    write_layout_of_blobs(&layout, &blobs, &options).expect("a layout");
    let reference = Reference::OciLayout {
        path: layout,
        selector: None,
    };
    of_reference(dir, &reference)
}

fn of_reference(dir: tempfile::TempDir, reference: &Reference) -> Image {
    of_platform(dir, reference, Arch::X86_64)
}

/// The image that `reference` has for a processor.
pub(crate) fn of_platform(dir: tempfile::TempDir, reference: &Reference, arch: Arch) -> Image {
    let options = firebrick_source::Options {
        platform: format!("linux/{}", arch.debian_name()).parse().ok(),
        ..firebrick_source::Options::default()
    };
    let image = open(reference, &options).expect("an image");
    let path = dir.path().join("image.ext4");
    let guest = guest_for(arch);
    let json = image_json(&image);
    let request = Request {
        image: &image,
        customise: Some(Box::new(|tree: &Tree| {
            let request = firebrick_customise::Request::new(Some(&guest), &json, Init::Auto);
            Ok(to_tar(&plan(&request, tree)?, 0))
        })),
        output: path.clone(),
        ext4: firebrick_ext4::Options::default(),
        limits: firebrick_layer::Limits::default(),
        created: Timestamp::default(),
        layers_at_once: 2,
    };
    build(request, &|_| {}).expect("the image builds");
    oracle::Image::check(&path).expect("e2fsck finds it clean");
    Image { _dir: dir, path }
}

fn image_json(image: &OciImage) -> ImageJson {
    let config = &image.config;
    ImageJson {
        run: RunConfig {
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            env: config.env.clone(),
            user: config.user.clone().unwrap_or_default(),
            working_dir: config.working_dir.clone().unwrap_or_default(),
            stop_signal: config.stop_signal.clone().unwrap_or_default(),
        },
        image_digest: None,
        created: config.created.clone(),
    }
}
