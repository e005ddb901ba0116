//! Where a VM mounts things, and images that have something else there.

use std::fmt;

use crate::lower::{Lower, LowerKind, Resolved, resolve};

/// Replaced by folders when the guest's stage 1 boots (`docs/guest.md`).
const REPLACED: [&str; 5] = ["dev", "proc", "sys", "rom", "overlay"];
/// Left as they are: a link to a folder will do.
const FOLLOWED: [&str; 2] = ["run", "tmp"];

/// A place to mount on that is no folder in the image. Its text says what will come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OddMountPoint {
    path: &'static str,
    symlink: bool,
    replaced: bool,
}

impl fmt::Display for OddMountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.symlink {
            "a symbolic link"
        } else {
            "not a folder"
        };
        let then = match (self.replaced, self.symlink) {
            (true, _) => {
                "in a VM of firebrick a folder hides it; an init of the image's own may fail to mount there"
            }
            (false, true) => "it leads to no folder, so in a VM nothing is mounted there",
            (false, false) => "in a VM nothing is mounted there, and programs may miss it",
        };
        write!(f, "/{} is {what} in the image: {then}", self.path)
    }
}

/// The mount points that the image has other ideas about.
pub fn odd_mount_points(lower: &dyn Lower) -> Vec<OddMountPoint> {
    let replaced = REPLACED
        .into_iter()
        .filter(|path| !matches!(lower.kind(path.as_bytes()), None | Some(LowerKind::Dir)))
        .map(|path| (path, true));
    // A link whose end is missing may be the image's own business, but nothing can be mounted behind it.
    let followed = FOLLOWED
        .into_iter()
        .filter(|path| lower.kind(path.as_bytes()).is_some())
        .filter(|path| {
            !matches!(
                resolve(lower, path.as_bytes()),
                Resolved::Found(_, LowerKind::Dir)
            )
        })
        .map(|path| (path, false));
    let odd = |(path, replaced): (&'static str, bool)| OddMountPoint {
        path,
        symlink: matches!(lower.kind(path.as_bytes()), Some(LowerKind::Symlink(_))),
        replaced,
    };
    replaced.chain(followed).map(odd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::tests::lower;

    fn said(lines: &[&str]) -> Vec<String> {
        odd_mount_points(&lower(lines))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn folders_and_links_to_folders_are_in_order() {
        assert_eq!(said(&[]), [""; 0]);
        assert_eq!(
            said(&["dev/", "proc/", "run -> var/run", "var/", "var/run/", "tmp/"]),
            [""; 0]
        );
    }

    #[test]
    fn what_is_in_the_way_is_named_with_what_comes_of_it() {
        let hidden =
            "in a VM of firebrick a folder hides it; an init of the image's own may fail to mount there";
        assert_eq!(
            said(&["dev", "proc -> proc", "run -> gone", "tmp", "overlay/", "rom -> /dev"]),
            [
                format!("/dev is not a folder in the image: {hidden}"),
                format!("/proc is a symbolic link in the image: {hidden}"),
                format!("/rom is a symbolic link in the image: {hidden}"),
                "/run is a symbolic link in the image: it leads to no folder, so in a VM nothing is mounted there".into(),
                "/tmp is not a folder in the image: in a VM nothing is mounted there, and programs may miss it".into(),
            ]
        );
    }
}
