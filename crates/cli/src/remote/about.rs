//! What is published about an image beside its bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use firebrick_store::About;
use firebrick_vmm::Arch;

use crate::doctor::image as doctor;
use crate::fit::Program;
use crate::image_file::ImageFile;
use crate::volume::Volume;

/// What can be told of an image by looking into it.
pub(crate) fn about(image: &ImageFile) -> anyhow::Result<About> {
    let json = image.image_json()?;
    let text = |key: &str| {
        json.as_ref()
            .and_then(|json| json.get(key)?.as_str())
            .map(str::to_owned)
    };
    let mut annotations = BTreeMap::new();
    for (key, name) in [
        ("ImageDigest", "dev.firebrick.source"),
        ("Created", "org.opencontainers.image.created"),
    ] {
        annotations.extend(text(key).map(|value| (name.to_owned(), value)));
    }
    let (label, uuid) = match &image.filesystem {
        Volume::Ext4(filesystem) => {
            let summary = filesystem.summary();
            let label = String::from_utf8_lossy(&summary.label)
                .trim_end_matches('\0')
                .to_owned();
            (
                Some(label).filter(|label| !label.is_empty()),
                Some(summary.uuid_text()),
            )
        }
        Volume::Squashfs(_) => (None, None),
    };
    Ok(About {
        architecture: architecture(image).unwrap_or_default(),
        os: "linux".to_owned(),
        format: image.filesystem.name().to_owned(),
        label,
        // The UUID is made of the build key, and is all that an image keeps of it.
        build_key: uuid.map(|uuid| format!("uuid:{uuid}")),
        guest_version: guest_version(image),
        kernel_needs: kernel_needs(image),
        annotations,
    })
}

/// The processor of the image's programs, as OCI names it.
fn architecture(image: &ImageFile) -> Option<String> {
    let program = Program::first_of(image, None).ok()??;
    let arch = Arch::ALL
        .into_iter()
        .find(|arch| arch.elf_machine() == program.elf.machine)?;
    Some(arch.debian_name().to_owned())
}

fn guest_version(image: &ImageFile) -> Option<String> {
    let path = format!("/{}", firebrick_customise::GUEST_PATH);
    let guest = image.start_of(OsStr::new(&path), doctor::GUEST_LEN).ok()??;
    doctor::version_in(&guest)
}

/// Options of the kernel without which the image does not boot.
fn kernel_needs(image: &ImageFile) -> Vec<String> {
    let filesystem = match &image.filesystem {
        Volume::Ext4(_) => vec!["CONFIG_EXT4_FS".to_owned()],
        Volume::Squashfs(filesystem) => {
            let compression = filesystem.summary().compression.to_string().to_uppercase();
            vec![
                "CONFIG_SQUASHFS".to_owned(),
                format!("CONFIG_SQUASHFS_{compression}"),
            ]
        }
    };
    let cgroups = doctor::has_systemd(image).then(|| "CONFIG_CGROUPS".to_owned());
    filesystem
        .into_iter()
        .chain(["CONFIG_VIRTIO_BLK".to_owned()])
        .chain(cgroups)
        .collect()
}
