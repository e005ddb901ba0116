//! Which program is PID 1: the image's own, or the guest.

use std::fmt;
use std::str::FromStr;

use crate::lower::{Lower, LowerKind, Resolved, resolve};

/// Who shall be `/sbin/init` in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// The image's own init where it has one, else the guest.
    #[default]
    Auto,
    /// The guest, whatever the image has.
    Firebrick,
    /// Leave `/sbin/init` as the image has it, even if that is nothing.
    None,
}

/// A text that names no [`Init`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no init: expected auto, firebrick or none")]
pub struct UnknownInit {
    text: String,
}

impl FromStr for Init {
    type Err = UnknownInit;

    fn from_str(text: &str) -> Result<Init, UnknownInit> {
        match text {
            "auto" => Ok(Init::Auto),
            "firebrick" => Ok(Init::Firebrick),
            "none" => Ok(Init::None),
            _ => Err(UnknownInit {
                text: text.to_owned(),
            }),
        }
    }
}

/// The init that an image brings along, as far as its path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageInit {
    /// `/sbin/init` is missing, or leads nowhere.
    Missing,
    /// systemd.
    Systemd,
    /// OpenRC's own init.
    OpenRc,
    /// busybox init (Alpine's, usually starting OpenRC).
    Busybox,
    /// The guest of an image that firebrick made before.
    Firebrick,
    /// Some other program.
    Other,
}

impl ImageInit {
    /// Looks at `/sbin/init` of the merged lower layers.
    pub fn detect(lower: &dyn Lower) -> ImageInit {
        let Resolved::Found(path, LowerKind::Other) = resolve(lower, b"sbin/init") else {
            return ImageInit::Missing;
        };
        match path.rsplit(|&byte| byte == b'/').next().unwrap_or_default() {
            b"systemd" => ImageInit::Systemd,
            b"openrc-init" => ImageInit::OpenRc,
            b"busybox" => ImageInit::Busybox,
            b"firebrick-guest" => ImageInit::Firebrick,
            _ => ImageInit::Other,
        }
    }
}

impl fmt::Display for ImageInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageInit::Missing => "none",
            ImageInit::Systemd => "systemd",
            ImageInit::OpenRc => "openrc",
            ImageInit::Busybox => "busybox",
            ImageInit::Firebrick => "firebrick",
            ImageInit::Other => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::tests::lower;

    #[test]
    fn detect_knows_the_usual_inits() {
        for (lines, expected) in [
            (&["bin/", "bin/init"][..], ImageInit::Missing),
            (
                &["sbin/", "sbin/init -> /lib/systemd/systemd"],
                ImageInit::Missing,
            ),
            (
                &[
                    "usr/",
                    "usr/sbin/",
                    "usr/lib/",
                    "usr/lib/systemd/",
                    "usr/lib/systemd/systemd",
                    "lib -> usr/lib",
                    "sbin -> usr/sbin",
                    "usr/sbin/init -> ../lib/systemd/systemd",
                ],
                ImageInit::Systemd,
            ),
            (
                &["sbin/", "bin/", "bin/busybox", "sbin/init -> /bin/busybox"],
                ImageInit::Busybox,
            ),
            (
                &["sbin/", "sbin/init -> openrc-init", "sbin/openrc-init"],
                ImageInit::OpenRc,
            ),
            (&["sbin/", "sbin/init"], ImageInit::Other),
            (&["sbin/", "sbin/init/"], ImageInit::Missing),
        ] {
            assert_eq!(ImageInit::detect(&lower(lines)), expected, "{lines:?}");
        }
    }
}
