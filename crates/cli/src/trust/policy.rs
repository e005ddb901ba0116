//! The policy that is in force: the first of its files that exists decides, and one that is of no use refuses everything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_trust::{Origin, Policy, Refusal, Signature, TrustedKey, Verdict, Version};

use super::refused::{Keys, Refused};
use crate::remote::config_folders;

/// The variable that names a policy.
const VARIABLE: &str = "FIREBRICK_POLICY";

/// A policy, and where it stands.
pub(crate) struct HostPolicy {
    pub(crate) path: PathBuf,
    pub(crate) policy: Policy,
}

/// The policy that the environment names, as an absolute path.
pub(crate) fn named() -> Option<PathBuf> {
    let value: OsString = std::env::var_os(VARIABLE).filter(|value| !value.is_empty())?;
    Some(std::path::absolute(&value).unwrap_or_else(|_| PathBuf::from(value)))
}

impl HostPolicy {
    /// The policy for this process; `None` where there is none, and everything is allowed.
    pub(crate) fn of_process() -> anyhow::Result<Option<HostPolicy>> {
        let places = config_folders()
            .into_iter()
            .map(|folder| folder.join("policy.toml"));
        HostPolicy::first_of(named(), places)
    }

    fn first_of(
        named: Option<PathBuf>,
        places: impl Iterator<Item = PathBuf>,
    ) -> anyhow::Result<Option<HostPolicy>> {
        // One that is named must be there.
        if let Some(path) = named {
            return HostPolicy::load(path).map(Some);
        }
        for path in places {
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return HostPolicy::load(path).map(Some),
            }
        }
        Ok(None)
    }

    fn load(path: PathBuf) -> anyhow::Result<HostPolicy> {
        match Policy::load(&path) {
            Ok(policy) => Ok(HostPolicy { path, policy }),
            Err(source) => {
                let error = anyhow::Error::new(source);
                Err(error)
                    .with_context(|| format!("no image is used, since the policy {path:?} is of no use"))
            }
        }
    }

    /// Asks about a version in a store. Gives the keys that signed it; none where none is needed.
    pub(crate) fn judge(
        &self,
        store: &str,
        version: &Version,
        signatures: &[Signature],
    ) -> anyhow::Result<Vec<TrustedKey>> {
        match self.policy.judge(version, signatures) {
            Verdict::Refused(refusal) => Err(Refused::Version {
                policy: self.path.clone(),
                version: version.clone(),
                keys: self.keys_for(version),
                store: store.to_owned(),
                fetched: false,
                source: refusal,
            }
            .into()),
            Verdict::Allowed { by } => Ok(by),
        }
    }

    /// Asks about a whole file in a store, which nothing can be signed of.
    pub(crate) fn judge_whole(&self, version: &Version) -> anyhow::Result<()> {
        match self.policy.judge(version, &[]) {
            Verdict::Refused(refusal) => Err(Refused::Whole {
                policy: self.path.clone(),
                name: version.name().to_owned(),
                source: refusal,
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// What is to be said of an image of this host that came as `origin` tells.
    pub(super) fn refused_here(&self, image: &Path, origin: &Origin, refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Changed { .. } => Refused::Changed {
                policy: self.path.clone(),
                image: image.to_owned(),
                version: origin.version.clone(),
                store: origin.store.clone(),
                source: refusal,
            },
            refusal => Refused::Version {
                policy: self.path.clone(),
                keys: self.keys_for(&origin.version),
                version: origin.version.clone(),
                store: origin.store.clone(),
                fetched: true,
                source: refusal,
            },
        }
    }

    fn keys_for(&self, version: &Version) -> Keys {
        let keys = self.policy.keys_for(version.name());
        Keys(keys.iter().map(|key| key.label.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_exists_decides() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let find = |named: Option<&str>, places: &[&str]| {
            let places: Vec<PathBuf> = places.iter().map(|name| at(name)).collect();
            let found = HostPolicy::first_of(named.map(at), places.into_iter());
            found.map(|found| found.map(|found| found.path))
        };
        fs::write(at("good"), "unsigned = \"allow\"\n").unwrap();
        fs::write(at("bad"), "unsinged = \"allow\"\n").unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        assert_eq!(find(None, &["a", "b"]).unwrap(), None);
        assert_eq!(find(None, &["a", "good", "bad"]).unwrap(), Some(at("good")));
        assert_eq!(find(Some("good"), &["bad"]).unwrap(), Some(at("good")));
        // What is there and of no use is not passed over.
        assert!(find(Some("a"), &["good"]).is_err());
        for useless in ["bad", "dangling", "folder", "good/x"] {
            assert!(find(None, &[useless, "good"]).is_err(), "{useless}");
        }
    }
}
