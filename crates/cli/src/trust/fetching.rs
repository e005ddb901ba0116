//! What a download asks of the policy before a byte of the image comes, and what it notes when the image is there.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;
use firebrick_digest::{Digest, Hasher};
use firebrick_store::{Published, Skipped, Store, Tagged};
use firebrick_trust::{FileIdentity, Origin, Signature, Version};

use super::{HostPolicy, Origins};
use crate::home::Home;
use crate::talk::Talk;

/// The policy and the records, for a download.
pub(crate) struct Fetching {
    policy: Option<HostPolicy>,
    origins: Origins,
}

impl Fetching {
    pub(crate) fn of(home: &Home) -> anyhow::Result<Fetching> {
        let policy = HostPolicy::of_process()?;
        let origins = Origins::of(home);
        if policy.is_some() {
            origins.prepare()?; // an image that cannot be noted is not fetched
        }
        Ok(Fetching { policy, origins })
    }

    /// Asks about a version. Gives its signatures, which are noted also where there is no policy: there may be one later.
    pub(crate) fn judge(
        &self,
        store: &Store,
        version: &Published,
        talk: &Talk,
    ) -> anyhow::Result<Vec<Signature>> {
        let signatures = match (store.signatures(version), &self.policy) {
            (Ok(signatures), _) => signatures,
            (Err(error), Some(_)) => return Err(error).context("cannot look for its signatures"),
            (Err(error), None) => {
                let error = anyhow::Error::new(error);
                talk.detail(&format!("its signatures cannot be had: {error:#}"));
                return Ok(Vec::new());
            }
        };
        let Some(policy) = &self.policy else {
            return Ok(signatures.found);
        };
        let judged = policy.judge(store.backend().address(), &version.version(), &signatures.found);
        if judged.is_err() {
            warn_of(&signatures.skipped, talk);
        }
        judged?;
        Ok(signatures.found)
    }

    /// Asks about a whole file, which has no signatures.
    pub(crate) fn judge_whole(&self, tagged: &Tagged) -> anyhow::Result<()> {
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        // Where there are no signatures, what they would be of decides nothing.
        policy.judge_whole(&version(tagged, Digest::of(b""))?)
    }

    /// Notes that the file at a path is this version.
    pub(crate) fn note(
        &self,
        image: &Path,
        store: &Store,
        version: &Published,
        signatures: Vec<Signature>,
        file: FileIdentity,
        talk: &Talk,
    ) -> anyhow::Result<()> {
        let origin = Origin {
            store: store.backend().address().to_owned(),
            version: version.version(),
            signatures,
            file,
        };
        self.write(image, &origin, talk)
    }

    /// Notes that the file at a path is a whole one of a store, with this digest if the store told it.
    pub(crate) fn note_whole(
        &self,
        image: &Path,
        store: &Store,
        tagged: &Tagged,
        digest: Option<Digest>,
        talk: &Talk,
    ) -> anyhow::Result<()> {
        let reading = || format!("cannot read {image:?}");
        let digest = match digest {
            Some(digest) => digest,
            None => digest_of(image).with_context(reading)?,
        };
        let origin = Origin {
            store: store.backend().address().to_owned(),
            version: version(tagged, digest)?,
            signatures: Vec::new(),
            file: FileIdentity::of(&fs::metadata(image).with_context(reading)?),
        };
        self.write(image, &origin, talk)
    }

    /// With a policy, an image that cannot be noted does not stay: it would count as made here.
    fn write(&self, image: &Path, origin: &Origin, talk: &Talk) -> anyhow::Result<()> {
        match (self.origins.record(image, origin), &self.policy) {
            (Ok(()), _) => Ok(()),
            (Err(error), Some(_)) => {
                fs::remove_file(image).with_context(|| format!("cannot delete {image:?}"))?;
                Err(error).with_context(|| format!("{image:?} does not stay, since it cannot be noted"))
            }
            (Err(error), None) => {
                talk.warn(&format!("where it came from is not noted: {error:#}"));
                Ok(())
            }
        }
    }
}

/// Tells of what a store has as signatures and are none.
pub(crate) fn warn_of(skipped: &[Skipped], talk: &Talk) {
    for one in skipped {
        talk.warn(&format!(
            "{} refers to it, and was skipped: {}",
            one.manifest, one.problem
        ));
    }
}

/// A name as trust has it; a whole file's own digest stands where a manifest's would.
fn version(tagged: &Tagged, digest: Digest) -> anyhow::Result<Version> {
    Ok(Version::new(tagged.name.as_str(), tagged.tag.as_str(), digest)?)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = BufReader::new(File::open(path)?);
    let mut piece = vec![0; 1 << 20];
    let mut hasher = Hasher::new();
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&piece[..len]),
        }
    }
}
