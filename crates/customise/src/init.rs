//! Which program is PID 1: the image's own, or the guest. And, under the image's own, how the agent is started.

use std::fmt;
use std::str::FromStr;

use crate::lower::{Lower, LowerKind, Resolved, resolve};
use crate::plan::CustomiseError;

/// Who shall be `/sbin/init` in the image, and start the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// The image's own init where it can supervise a service ([`Chosen`] says which can), else the guest.
    #[default]
    Auto,
    /// The guest, whatever the image has.
    Firebrick,
    /// systemd, which must be in the image.
    Systemd,
    /// OpenRC, under whatever init starts it in the image.
    OpenRc,
    /// busybox init, with an inittab of ours.
    Busybox,
    /// Leave `/sbin/init` as the image has it, even if that is nothing, and start the agent nowhere.
    None,
}

/// What became of an [`Init`] in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The guest is `/sbin/init`.
    Guest,
    /// The agent is a service of systemd.
    Systemd,
    /// The agent is a service of OpenRC.
    OpenRc,
    /// busybox init starts the agent again and again.
    Busybox,
    /// The image stays as it is.
    Untouched,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Chosen::Guest => "the guest is PID 1",
            Chosen::Systemd => "systemd starts the agent",
            Chosen::OpenRc => "OpenRC starts the agent",
            Chosen::Busybox => "busybox starts the agent",
            Chosen::Untouched => "nobody starts the agent",
        })
    }
}

/// A text that names no [`Init`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no init: expected auto, firebrick, systemd, openrc, busybox or none")]
pub struct UnknownInit {
    text: String,
}

impl FromStr for Init {
    type Err = UnknownInit;

    fn from_str(text: &str) -> Result<Init, UnknownInit> {
        match text {
            "auto" => Ok(Init::Auto),
            "firebrick" => Ok(Init::Firebrick),
            "systemd" => Ok(Init::Systemd),
            "openrc" => Ok(Init::OpenRc),
            "busybox" => Ok(Init::Busybox),
            "none" => Ok(Init::None),
            _ => Err(UnknownInit {
                text: text.to_owned(),
            }),
        }
    }
}

impl Init {
    /// Decides for an image with a guest.
    ///
    /// # Errors
    /// [`CustomiseError::NoInit`] if the image lacks what is asked for.
    pub fn choose(self, lower: &dyn Lower) -> Result<Chosen, CustomiseError> {
        let has = |paths: &[&str]| paths.iter().any(|path| is_file(lower, path));
        let need = |init, paths: &[&str], advice| match has(paths) {
            true => Ok(()),
            false => Err(CustomiseError::NoInit {
                init,
                missing: format!("/{}", paths[0]),
                advice,
            }),
        };
        match self {
            Init::None => Ok(Chosen::Untouched),
            Init::Firebrick => Ok(Chosen::Guest),
            Init::Systemd => {
                need(
                    "systemd",
                    &SYSTEMD,
                    "install the image's systemd packages (Debian: systemd-sysv)",
                )?;
                Ok(Chosen::Systemd)
            }
            Init::OpenRc => {
                let advice = "install OpenRC (Alpine: openrc; Debian: openrc and sysvinit-core)";
                need("openrc", &["sbin/openrc-run"], advice)?;
                need("openrc", &["sbin/supervise-daemon"], advice)?;
                need("openrc", &["sbin/init", "sbin/openrc-init"], advice)?;
                Ok(Chosen::OpenRc)
            }
            Init::Busybox => {
                need("busybox", &["bin/busybox"], "install busybox")?;
                Ok(Chosen::Busybox)
            }
            Init::Auto => Ok(match ImageInit::detect(lower) {
                ImageInit::Systemd => Chosen::Systemd,
                ImageInit::OpenRc if has(&["sbin/supervise-daemon"]) => Chosen::OpenRc,
                // It would run an inittab that starts no agent, and whose other programs are often missing.
                ImageInit::Busybox | ImageInit::Missing => Chosen::Guest,
                ImageInit::OpenRc | ImageInit::Firebrick | ImageInit::Other => Chosen::Untouched,
            }),
        }
    }
}

/// Where systemd lies; `/lib` may be a folder of its own.
const SYSTEMD: [&str; 2] = ["lib/systemd/systemd", "usr/lib/systemd/systemd"];

/// Whether the path leads to something that is no folder.
pub(crate) fn is_file(lower: &dyn Lower, path: &str) -> bool {
    matches!(
        resolve(lower, path.as_bytes()),
        Resolved::Found(_, LowerKind::Other)
    )
}

/// What `/sbin/init` must be a symlink to, where the image has none.
pub(crate) fn link_of(chosen: Chosen, lower: &dyn Lower) -> Option<String> {
    let missing = !is_file(lower, "sbin/init");
    let target = match chosen {
        Chosen::Guest => crate::GUEST_PATH,
        Chosen::Systemd if missing => SYSTEMD.into_iter().find(|path| is_file(lower, path))?,
        Chosen::OpenRc if missing => "sbin/openrc-init",
        Chosen::Busybox if missing || ImageInit::detect(lower) != ImageInit::Busybox => "bin/busybox",
        _ => return None,
    };
    Some(format!("/{target}"))
}

/// The init that an image brings along, as far as its path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageInit {
    /// `/sbin/init` is missing, or leads nowhere.
    Missing,
    /// systemd.
    Systemd,
    /// OpenRC, whose services some init starts: its own, busybox's, or System V's.
    OpenRc,
    /// busybox init without OpenRC.
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
            b"firebrick-guest" => ImageInit::Firebrick,
            _ if is_file(lower, "sbin/openrc-run") => ImageInit::OpenRc,
            b"busybox" => ImageInit::Busybox,
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
                &[
                    "sbin/",
                    "sbin/init -> openrc-init",
                    "sbin/openrc-init",
                    "sbin/openrc-run",
                ],
                ImageInit::OpenRc,
            ),
            (&["sbin/", "sbin/init", "sbin/openrc-run"], ImageInit::OpenRc),
            (
                &[
                    "sbin/",
                    "bin/",
                    "bin/busybox",
                    "sbin/init -> /bin/busybox",
                    "sbin/openrc-run",
                ],
                ImageInit::OpenRc,
            ),
            (&["sbin/", "sbin/init"], ImageInit::Other),
            (&["sbin/", "sbin/init/"], ImageInit::Missing),
        ] {
            assert_eq!(ImageInit::detect(&lower(lines)), expected, "{lines:?}");
        }
    }
}
