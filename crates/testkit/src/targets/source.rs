//! What a registry or an archive says of an OCI image.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use firebrick_source::{
    Document, Limits, Options, Part, Platform, Reference, parse_config, parse_document, parse_saved,
};

/// What a registry may call a document.
const MEDIA_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("text/plain"),
];

/// Reads `bytes` behind the first, which chooses: as a manifest or index, an image config, `manifest.json` of
/// `docker save`, or a reference. Whether they are one.
///
/// # Panics
/// If a promise of a parser does not hold.
pub fn manifests(bytes: &[u8]) -> bool {
    let Some((&first, bytes)) = bytes.split_first() else {
        return false;
    };
    let limits = Limits {
        layers: 20,
        ..Limits::default()
    };
    match first % 8 {
        choice @ 0..=3 => document(bytes, MEDIA_TYPES[usize::from(choice)], &limits),
        4 | 5 => {
            let config = parse_config(bytes, "here");
            config.is_ok_and(|(config, _)| config.raw == bytes)
        }
        6 => {
            let Ok(images) = parse_saved(bytes, &limits) else {
                return false;
            };
            for image in images {
                assert!(image.layers.is_none_or(|layers| layers.len() <= limits.layers));
            }
            true
        }
        _ => reference(bytes),
    }
}

fn document(bytes: &[u8], media_type: Option<&str>, limits: &Limits) -> bool {
    let descriptors = match parse_document(bytes, media_type, "here", limits) {
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= limits.layers);
            assert!(manifest.config.size <= limits.config_bytes);
            manifest.layers
        }
        Ok(Document::Index(index)) => index.manifests,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    for descriptor in descriptors {
        if let Ok(digest) = descriptor.digest(Part::Manifest) {
            assert_eq!(digest.to_string(), descriptor.digest, "one spelling for a digest");
        }
        let platform = descriptor.platform();
        assert!(platform.is_none_or(|platform| !platform.architecture.is_empty()));
    }
    true
}

/// What is printed is read again as the same.
fn reference(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (reference, platform) = (text.parse::<Reference>(), text.parse::<Platform>());
    if let Ok(reference) = &reference {
        let printed = reference.to_string();
        assert_eq!(
            printed.parse::<Reference>().as_ref(),
            Ok(reference),
            "{printed:?}"
        );
    }
    if let Ok(platform) = &platform {
        let printed = platform.to_string();
        assert_eq!(printed.parse::<Platform>().as_ref(), Ok(platform), "{printed:?}");
    }
    reference.is_ok() || platform.is_ok()
}

/// Opens `bytes` as an archive of images, in OCI's and in Docker's form, and reads all layers. Whether they are one.
///
/// # Panics
/// If reading goes beyond the archive, or without end.
pub fn archives(bytes: &[u8]) -> bool {
    let mut file = memory_file();
    file.write_all(bytes).expect("there is memory");
    let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut options = Options {
        platform: Some("linux/amd64".parse().expect("a platform")),
        temp_dir: std::env::temp_dir(),
        ..Options::default()
    };
    options.limits.layers = 20;
    options.limits.spool_bytes = 16 << 20;
    let docker = Reference::DockerArchive {
        path: path.clone(),
        selector: None,
    };
    let mut is_one = false;
    let oci = Reference::OciArchive { path, selector: None };
    for reference in [docker, oci] {
        let image = match firebrick_source::open(&reference, &options) {
            Ok(image) => image,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        is_one = true;
        for layer in &image.layers {
            let Ok(mut stream) = layer.open() else { continue };
            let mut read = 0;
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                read += count as u64;
            }
            let most = options.limits.spool_bytes.max(bytes.len() as u64);
            assert!(read <= most, "{read} bytes of a layer lie in the archive");
        }
    }
    is_one
}

fn memory_file() -> std::fs::File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("archive", flags)
        .expect("there is memory")
        .into()
}
