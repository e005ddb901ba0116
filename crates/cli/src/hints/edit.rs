//! Advice for changes of images.

use firebrick_ext4::edit::EditError;

pub(super) fn of_edit(error: &EditError) -> Option<String> {
    let hint = match error {
        EditError::Read(error) => return super::of_read(error),
        EditError::Unclean { .. } | EditError::Beyond => "repair it first: e2fsck -f FILE",
        EditError::Unsupported { .. } => {
            "mount it on a machine of yours and change it there, or make a new image: firebrick rootfs from-docker"
        }
        EditError::NoSpace { .. } | EditError::NoInodes { .. } => {
            "make room: firebrick rootfs edit IMAGE --rm PATH; or give it more: firebrick rootfs resize IMAGE --free 1G"
        }
        EditError::Exists { .. } | EditError::IsDirectory { .. } => {
            "name another place, or remove it first: firebrick rootfs edit IMAGE --rm PATH"
        }
        EditError::Needed { .. } => "name what is in it: firebrick rootfs ls IMAGE",
        _ => return None,
    };
    Some(hint.to_owned())
}
