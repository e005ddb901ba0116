//! What helps when a layer cannot be read, or does not fit those below it.

use std::io;

use firebrick_build::BuildError;
use firebrick_layer::{ScanError, TarError};
use firebrick_tree::MergeError;

const NO_TAR: &str = "this may be no tar at all, see: file PATH; a folder is given as dir:PATH";
const DAMAGED: &str =
    "the layer is damaged, or whoever made it made it wrong: get it again, or look with: tar -tvf";

pub(super) fn of_scan(error: &ScanError) -> Option<String> {
    Some(match error {
        ScanError::Limit { .. } => {
            "if you trust the image, raise the limit: --max-entries N or --max-size SIZE".to_owned()
        }
        ScanError::Corrupt { offset: 0, source } if is_no_header(source) => NO_TAR.to_owned(),
        ScanError::Truncated { offset: 0..512 } => NO_TAR.to_owned(),
        ScanError::Read { source, .. } if source.kind() == io::ErrorKind::IsADirectory => NO_TAR.to_owned(),
        ScanError::Read { source, .. } if source.to_string().contains("more than the ratio") => {
            "if you trust the image, allow it a higher one: --max-ratio N".to_owned()
        }
        ScanError::Read { source, .. } if is_registry(&source.to_string()) => {
            "the registry failed, or the way to it: try again later; the cache keeps what came".to_owned()
        }
        ScanError::Read { source, .. } if source.to_string().contains("(os error ") => {
            "this host failed, not the layer; a disk may be full: df -h".to_owned()
        }
        ScanError::Corrupt { .. } | ScanError::Truncated { .. } | ScanError::Read { .. } => {
            DAMAGED.to_owned()
        }
        _ => return None,
    })
}

/// Whether these are the words of a source about a registry: all that is left of its error here.
fn is_registry(said: &str) -> bool {
    said.contains("://") && (said.contains(" tries)") || said.contains(" answers "))
}

/// Whether what should be a tar header is something else.
fn is_no_header(error: &TarError) -> bool {
    matches!(
        error,
        TarError::Checksum { .. }
            | TarError::Number {
                field: "checksum",
                ..
            }
    )
}

/// What reads `dir:` fails for reasons of the host's. They have crossed a thread, so only their words are left.
pub(super) fn of_folder(error: &BuildError) -> Option<String> {
    let BuildError::Scan {
        source: ScanError::Read { source, .. },
        ..
    } = error
    else {
        return None;
    };
    let said = source.to_string();
    let hint = if said.contains("Permission denied") || said.contains("Operation not permitted") {
        "run as a user who may read it; what a rootless container wrote you may read so: \
         unshare --map-root-user --map-auto firebrick ..."
    } else if said.contains("changed while it was read") {
        "build when nothing writes there any more, or from a copy: cp -a"
    } else if said.contains("cannot be put in a layer") {
        "rename it where it lies, or move it out of the folder"
    } else {
        "see what is the matter with it: ls -la"
    };
    Some(hint.to_owned())
}

/// The layer must be made again: with what, its error says.
pub(super) fn of_merge(layer: usize, error: &MergeError) -> String {
    let made = match error {
        MergeError::LinkTargetMissing { target, .. } => {
            format!("with {target} in it before the link, or in a lower one")
        }
        MergeError::LinkTargetDirectory { path, target } => {
            format!("with a symbolic link: ln -s {target} {path}")
        }
        MergeError::ParentNotDirectory { path, parent } => {
            format!("with a folder as {parent}, or without {path}")
        }
        MergeError::SymlinkLoop { path } | MergeError::Tangled { path } => {
            format!("with plain folders above {path}, or without it")
        }
        MergeError::RootReplaced { path } => format!("without {path}"),
        MergeError::TooManyInodes { .. } => "with fewer files".to_owned(),
        _ => "without what the error names".to_owned(),
    };
    format!("see what layer {layer} (the lowest is 0) holds with tar -tvf, and make it again {made}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_not_damaged_layers() {
        for (said, hint) in [
            (
                "cannot open \"d/x\": Permission denied (os error 13)",
                "run as a user who may read it",
            ),
            ("\"d/x\" changed while it was read: its length", "cp -a"),
            (
                "\"d/.wh.x\" cannot be put in a layer: names that start",
                "rename it",
            ),
            ("cannot read \"d/x\": Input/output error (os error 5)", "ls -la"),
        ] {
            let source = ScanError::Read {
                offset: 0,
                source: io::Error::other(said),
            };
            let error = BuildError::Scan {
                layer: 0,
                digest: None,
                source,
            };
            let found = of_folder(&error).unwrap_or_default();
            assert!(found.contains(hint) && !found.contains("layer"), "{found}");
        }
    }

    #[test]
    fn what_fails_on_the_way_is_no_damage() {
        for (said, hint) in [
            (
                "cannot read https://a.io/v2/x/blobs/y (5 tries): io: reset",
                "the registry failed",
            ),
            ("https://a.io/v2/x/blobs/y answers 503", "the registry failed"),
            (
                "cannot use the partial download \"x\": No space left (os error 28)",
                "df -h",
            ),
            ("corrupt deflate stream", "the layer is damaged"),
        ] {
            let source = io::Error::other(said);
            let found = of_scan(&ScanError::Read { offset: 0, source }).unwrap_or_default();
            assert!(found.contains(hint), "{found}");
        }
    }

    #[test]
    fn only_what_has_no_header_is_no_tar() {
        let hint = |offset, source| of_scan(&ScanError::Corrupt { offset, source });
        let checksum = || TarError::Checksum {
            actual: 1,
            expected: 2,
        };
        assert_eq!(hint(0, checksum()).as_deref(), Some(NO_TAR));
        assert_eq!(hint(512, checksum()).as_deref(), Some(DAMAGED));
        assert_eq!(hint(0, TarError::LoneZeroBlock).as_deref(), Some(DAMAGED));
    }
}
