//! What helps when an OCI image cannot be had. The library knows most of it; the flags are ours.

use std::io;
use std::path::Path;

use firebrick_source::{Platform, SourceError};

use super::{DAMAGED, registry};

/// Processors by OCI's names for which there are Linux images.
const ARCHITECTURES: [&str; 12] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x",
    "sparc64",
];

pub(super) fn of(error: &SourceError) -> Option<String> {
    Some(match error {
        SourceError::Shared(error) => return of(error),
        SourceError::NoPlatform { available, .. } => of_platforms(available),
        SourceError::NotFound { reference, .. } => format!(
            "see which tags there are: skopeo list-tags docker://{}/{}",
            reference.name.registry, reference.name.repository
        ),
        SourceError::Limit { .. } => return None, // no flag raises these
        SourceError::Mismatch { .. }
        | SourceError::LayerCount { .. }
        | SourceError::Archive { .. }
        | SourceError::Json { .. }
        | SourceError::Malformed { .. }
        | SourceError::Outside { .. }
        | SourceError::LinkLoop { .. } => DAMAGED.to_owned(),
        SourceError::Missing { .. } if error.hint().is_none() => {
            "the image is incomplete: copy it again, e.g. skopeo copy --all docker://NAME oci:DIR:TAG"
                .to_owned()
        }
        SourceError::MediaType { .. } => {
            "this may be no container image but another artifact; see: skopeo inspect --raw docker://NAME"
                .to_owned()
        }
        SourceError::Registry(error) => return registry::of(error),
        SourceError::File { action, path, source } => return of_file(action, path, source.kind()),
        SourceError::Changed { .. } => {
            "build when nothing writes there any more, or from a copy: cp -a".to_owned()
        }
        SourceError::Unrepresentable { path, .. } => {
            format!("rename it or leave it out: {}", path.display())
        }
        other => return other.hint(),
    })
}

/// Those of the offered platforms that a VM can be of.
fn of_platforms(available: &[String]) -> String {
    let is_bootable = |platform: &Platform| {
        platform.os == "linux" && ARCHITECTURES.contains(&platform.architecture.as_str())
    };
    let bootable: Vec<String> = available
        .iter()
        .filter_map(|platform| platform.parse().ok().filter(is_bootable))
        .map(|platform: Platform| format!("--platform {platform}"))
        .collect();
    match bootable.is_empty() {
        true => {
            "none of these is for Linux on a processor that firebrick knows: take another image".to_owned()
        }
        false => format!("choose one: {}", bootable.join(", or ")),
    }
}

fn of_file(action: &str, path: &Path, kind: io::ErrorKind) -> Option<String> {
    let is_cache = matches!(
        action,
        "make" | "lock" | "write" | "write a blob in" | "rename to" | "sync" | "use the partial download"
    ) || (action == "open" && path.extension().is_some_and(|end| end == "partial"));
    let path = path.display();
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound => None,
        _ if is_cache => Some(
            "do without the cache, --no-cache, or have another: export XDG_CACHE_HOME=FOLDER, or FIREBRICK_HOME"
                .to_owned(),
        ),
        io::ErrorKind::NotADirectory => Some(format!(
            "a file is oci-archive:{path}, docker-archive:{path} or tar:{path}"
        )),
        io::ErrorKind::PermissionDenied => Some(format!(
            "run as a user who may read it, see: ls -ld {path}; what a rootless container wrote you may read so: \
             unshare --map-root-user --map-auto firebrick ..."
        )),
        // Whoever prints these knows what the host's own errors mean.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_platforms_that_can_boot_are_offered() {
        let hint = |available: &[&str]| {
            of_platforms(&available.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            hint(&["linux/arm/v7", "linux/s390x", "unknown/unknown", "windows/amd64"]),
            "choose one: --platform linux/arm/v7, or --platform linux/s390x"
        );
        for none in [&["unknown/unknown", "windows/amd64", "linux/unknown"][..], &[]] {
            assert!(hint(none).starts_with("none of these is for Linux"));
        }
    }
}
