//! Images to boot, built by firebrick itself from real roots and judged by `e2fsck` before anyone boots them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use firebrick_build::{Merged, Request, build};
use firebrick_customise::{ImageJson, Init, Profile, RunConfig, Service, plan, to_tar};
use firebrick_source::{OciImage, Reference, open};
use firebrick_testkit::fixtures::{ALPINE, BUSYBOX, fixture};
use firebrick_testkit::layers::Layer;
use firebrick_testkit::layers::oci::{Blob, Compression, Options, write_layout_of_blobs};
use firebrick_tree::Timestamp;
use firebrick_vmm::Arch;
use serde_json::Value;

/// An image that firebrick built; gone when this is dropped.
pub(crate) struct Image {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
    /// Its filesystem, as the kernel calls it.
    pub(crate) filesystem: &'static str,
}

/// Which filesystem an image gets.
#[derive(Debug, Clone, Default)]
pub(crate) enum Filesystem {
    #[default]
    Ext4,
    Squashfs,
}

impl Filesystem {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Squashfs => "squashfs",
        }
    }

    fn to_build(&self) -> firebrick_build::Filesystem {
        match self {
            Filesystem::Ext4 => firebrick_build::Filesystem::default(),
            // Quickly: what boots is looked at here, not how small it is.
            Filesystem::Squashfs => firebrick_build::Filesystem::Squashfs(firebrick_squashfs::Options {
                level: Some(1),
                threads: 2,
                ..firebrick_squashfs::Options::default()
            }),
        }
    }
}

/// What an image is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Alpine,
    Busybox,
    /// With systemd, Python and runc.
    Debian,
    /// The same, with nothing at `/sbin/init`.
    DebianWithoutInit,
    /// With OpenRC under System V init.
    DebianOpenRc,
}

/// What is asked of a build.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    /// The `config` object of the OCI config; busybox keeps its own.
    pub(crate) config: Value,
    /// More layers; busybox takes none.
    pub(crate) more: Vec<Vec<u8>>,
    pub(crate) init: Init,
    pub(crate) service: Service,
    pub(crate) words: Vec<String>,
    pub(crate) profile: Option<Profile>,
    pub(crate) filesystem: Filesystem,
}

impl Recipe {
    /// The image; `None` where tests were told to do without what it takes.
    pub(crate) fn of(mut self, root: Root) -> Option<Image> {
        let tar = match root {
            Root::Busybox => {
                let dir = tempfile::tempdir().expect("a temporary folder");
                let reference = Reference::OciLayout {
                    path: fixture(BUSYBOX[1])?,
                    selector: None,
                };
                return Some(of_platform(dir, &reference, Arch::X86_64, &self));
            }
            Root::Alpine => {
                let mut root = Vec::new();
                let file = std::fs::File::open(fixture(ALPINE[1])?).expect("the fixture is readable");
                let mut reader = flate2::read::GzDecoder::new(file);
                reader.read_to_end(&mut root).expect("a tar.gz");
                root
            }
            Root::Debian => debian_root("systemd", "python3-minimal,systemd-sysv,udev,runc")?,
            Root::DebianWithoutInit => {
                let without = layer("f 0644 /usr/sbin/.wh.init \"\"");
                self.more.insert(0, without);
                return self.of(Root::Debian);
            }
            Root::DebianOpenRc => {
                self.more.insert(0, without_lsb_scripts());
                debian_root("openrc", "openrc,sysvinit-core")?
            }
        };
        self.more.insert(0, tar);
        Some(of_tars(&self))
    }
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
    // What bench/agent compares with.
    if let Some(other) = std::env::var_os("FIREBRICK_GUEST") {
        return std::fs::read(other).expect("a guest");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let triple = format!("{arch}-unknown-linux-gnu");
    let path = firebrick_embed::build_guest_for(&triple, target).expect("the guest builds");
    std::fs::read(path).expect("the guest was built")
}

/// Alpine with this `config` object in its OCI config, and maybe more layers; `None` without the fixtures.
pub(crate) fn alpine(config: Value, more: &[Vec<u8>]) -> Option<Image> {
    let recipe = Recipe {
        config,
        more: more.to_vec(),
        ..Recipe::default()
    };
    recipe.of(Root::Alpine)
}

/// The smallest root there is here.
pub(crate) fn any(config: Value) -> Option<Image> {
    alpine(config.clone(), &[]).or_else(|| debian(config, &[]))
}

/// Busybox as its OCI layout has it; `None` without the fixtures.
pub(crate) fn busybox() -> Option<Image> {
    Recipe::default().of(Root::Busybox)
}

/// A Debian root with Python and systemd. `None` only where oracles are left out.
pub(crate) fn debian(config: Value, more: &[Vec<u8>]) -> Option<Image> {
    let recipe = Recipe {
        config,
        more: more.to_vec(),
        ..Recipe::default()
    };
    recipe.of(Root::Debian)
}

/// A root's tar.
fn debian_root(name: &str, packages: &str) -> Option<Vec<u8>> {
    let tar = firebrick_testkit::debian::root(Path::new(env!("CARGO_TARGET_TMPDIR")), name, packages)?;
    Some(std::fs::read(tar).expect("the root was made"))
}

/// Hides Debian's scripts for System V's runlevels. OpenRC reads the header of each with a dozen processes, which takes an
/// emulated machine half a minute; what they do, stage 1 has done.
fn without_lsb_scripts() -> Vec<u8> {
    const SCRIPTS: &str = "bootlogs brightness checkfs.sh checkroot-bootclean.sh checkroot.sh halt hostname.sh hwclock.sh \
                           killprocs mount-configfs mountall-bootclean.sh mountall.sh mountdevsubfs.sh mountkernfs.sh \
                           mountnfs-bootclean.sh mountnfs.sh rc.local reboot rmnologin sendsigs single umountfs \
                           umountnfs.sh umountroot urandom";
    let scripts = SCRIPTS
        .split_whitespace()
        .map(|name| format!("init.d/.wh.{name}"));
    let runlevels =
        ["sysinit", "default", "off", "recovery"].map(|level| format!("runlevels/{level}/.wh..wh..opq"));
    let lines: Vec<String> = scripts
        .chain(runlevels)
        .map(|path| format!("f 0644 /etc/{path} \"\""))
        .collect();
    layer(&lines.join("\n"))
}

fn of_tars(recipe: &Recipe) -> Image {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let layout = dir.path().join("layout");
    let options = Options {
        config: recipe.config.clone(),
        ..Options::default()
    };
    let blobs: Vec<Blob> = recipe
        .more
        .iter()
        .map(|tar| Blob::of_tar(tar, Compression::None))
        .collect();
    write_layout_of_blobs(&layout, &blobs, &options).expect("a layout");
    let reference = Reference::OciLayout {
        path: layout,
        selector: None,
    };
    of_platform(dir, &reference, Arch::X86_64, recipe)
}

/// The image that `reference` has for a processor.
pub(crate) fn of_platform(
    dir: tempfile::TempDir,
    reference: &Reference,
    arch: Arch,
    recipe: &Recipe,
) -> Image {
    let options = firebrick_source::Options {
        platform: format!("linux/{}", arch.debian_name()).parse().ok(),
        ..firebrick_source::Options::default()
    };
    let image = open(reference, &options).expect("an image");
    let filesystem = recipe.filesystem.name();
    let path = dir.path().join(format!("image.{filesystem}"));
    let guest = guest_for(arch);
    let json = image_json(&image);
    let request = Request {
        image: &image,
        customise: Some(Box::new(|merged: &Merged<'_>| {
            let mut request = firebrick_customise::Request::new(Some(&guest), &json, recipe.init);
            request.service = recipe.service.clone();
            request.words.clone_from(&recipe.words);
            request.profile = recipe.profile;
            Ok(to_tar(&plan(&request, merged.tree)?, 0))
        })),
        output: path.clone(),
        filesystem: recipe.filesystem.to_build(),
        limits: firebrick_layer::Limits::default(),
        created: Timestamp::default(),
        layers_at_once: 2,
    };
    build(request, &|_| {}).expect("the image builds");
    if filesystem == "ext4" {
        firebrick_testkit::oracle::Image::check(&path).expect("e2fsck finds it clean");
    }
    Image {
        _dir: dir,
        path,
        filesystem,
    }
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
        layers: Vec::new(),
    }
}
