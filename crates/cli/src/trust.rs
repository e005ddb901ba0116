//! Whether images may be used on this host: the policy in force, what is remembered of images that were fetched, and the one gate that
//! everything passes that a VM is booted of, [`Admitted`].
//!
//! What counts as a signature is `firebrick-trust`'s. docs/trust.md tells the rules.

mod fetching;
mod keys;
mod origins;
mod policy;
mod refused;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use firebrick_trust::{FileIdentity, Refusal, Stance, Verdict};

pub(crate) use fetching::{Fetching, warn_of};
pub(crate) use keys::{private_key, public_key};
use origins::Origins;
pub(crate) use policy::{HostPolicy, named as named_policy};
pub(crate) use refused::Refused;

use crate::home::Home;
use crate::image_file::ImageFile;

/// How long after an image was put in place what is remembered of it may be that of the one before.
const SETTLING: Duration = Duration::from_secs(2);
/// How often that is looked at again.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// An image that may be booted. There is no other way to one than to ask the policy, and none into a VM without one.
pub(crate) struct Admitted {
    image: ImageFile,
    is_noted: bool,
}

impl Admitted {
    /// Opens the image in a file if the policy of this host allows it. Nothing of one that is refused is read.
    pub(crate) fn open(home: &Home, path: PathBuf) -> anyhow::Result<Admitted> {
        let is_noted = judge(home, &path).with_context(|| format!("cannot boot {path:?}"))?;
        Ok(Admitted {
            image: ImageFile::open_file(path)?,
            is_noted,
        })
    }

    /// An image that stays in its store, about which [`Fetching::judge`] was asked when it was opened there.
    pub(crate) fn of_store(image: ImageFile) -> Admitted {
        Admitted {
            image,
            is_noted: false,
        }
    }

    /// Whether a change of the file's ctime would make another image of it.
    pub(crate) fn is_noted(&self) -> bool {
        self.is_noted
    }
}

impl Deref for Admitted {
    type Target = ImageFile;

    fn deref(&self) -> &ImageFile {
        &self.image
    }
}

/// Asks the policy about an image of this host. Whether the file must stay as it is for the answer to be the same again.
pub(crate) fn judge(home: &Home, image: &Path) -> anyhow::Result<bool> {
    let Some(policy) = HostPolicy::of_process()? else {
        return Ok(false);
    };
    let origins = Origins::of(home);
    let until = Instant::now() + SETTLING;
    loop {
        let looking = || format!("cannot look at {image:?}");
        let metadata = fs::metadata(image).with_context(looking)?;
        let Some(origin) = origins.of_image(image)? else {
            return match policy.policy.local() {
                Stance::Allow => Ok(false),
                Stance::Refuse => Err(Refused::Local { policy: policy.path }.into()),
            };
        };
        match origin.judge(&policy.policy, &FileIdentity::of(&metadata)) {
            Verdict::Allowed { .. } => return Ok(true),
            // Who puts an image in place writes down what it is a moment later.
            Verdict::Refused(Refusal::Changed { .. }) if is_new(&metadata) && Instant::now() < until => {
                std::thread::sleep(LOOK_INTERVAL);
            }
            Verdict::Refused(refusal) => return Err(policy.refused_here(image, &origin, refusal).into()),
        }
    }
}

/// Whether a file got its name, or its last byte, only now.
fn is_new(metadata: &fs::Metadata) -> bool {
    let seconds = std::os::unix::fs::MetadataExt::ctime(metadata);
    let ctime = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    // A clock that goes back makes it no newer.
    ctime.elapsed().is_ok_and(|since| since < SETTLING)
}

/// Refuses to make an image out of a fetched one that the policy refuses: what is made here is judged as such.
pub(crate) fn ensure_usable(home: &Home, image: &Path) -> anyhow::Result<()> {
    match Origins::of(home).of_image(image)? {
        Some(_) => {
            judge(home, image).with_context(|| format!("cannot make another image of {image:?}"))?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Notes that the image at this path was made here, or is gone: whatever was fetched to there is no more.
pub(crate) fn forget(home: &Home, image: &Path) -> anyhow::Result<()> {
    Origins::of(home).forget(image)
}
