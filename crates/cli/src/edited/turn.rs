//! Who changes an image waits for their turn: each change is made from what the last one left, so none is lost.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::Refusal;
use crate::talk::Talk;

/// The right to change an image, until it is dropped. Filesystems without locks give it to everybody.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Locked; what the path led to when the turn came.
    file: File,
    image: PathBuf,
}

impl Turn {
    /// Waits until no other firebrick changes this image.
    pub(crate) fn wait(image: &Path, talk: &Talk) -> anyhow::Result<Turn> {
        let mut told = false;
        loop {
            let file = File::open(image).with_context(|| format!("cannot open {image:?}"))?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                if !told {
                    talk.say(&format!(
                        "waiting until another firebrick has changed {}",
                        image.display()
                    ));
                    told = true;
                }
                // It fails where there are no locks, and is tried again where a signal came.
                while rustix::fs::flock(&file, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
            }
            let turn = Turn {
                file,
                image: image.to_owned(),
            };
            // Who was first has put another file in its place.
            if turn.is_current()? {
                return Ok(turn);
            }
        }
    }

    /// Refuses to replace what is no longer what the change was made from: something else than a change took its place.
    pub(crate) fn ensure_current(&self) -> anyhow::Result<()> {
        match self.is_current()? {
            true => Ok(()),
            false => Err(Refusal::Replaced {
                image: self.image.clone(),
            }
            .into()),
        }
    }

    fn is_current(&self) -> anyhow::Result<bool> {
        let image = &self.image;
        let looking = || format!("cannot look at {image:?}");
        let own = self.file.metadata().with_context(looking)?;
        let there = std::fs::metadata(image).with_context(looking)?;
        Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
    }
}
