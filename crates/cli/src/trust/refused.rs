//! Why an image is not used, and what can be done about it.

use std::path::PathBuf;

use firebrick_trust::{Refusal, Version};

/// Names of keys, as a policy has them.
#[derive(Debug)]
pub(crate) struct Keys(pub(super) Vec<String>);

/// What the policy refuses, or whoever verifies.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// A version of a store, there or as it was fetched.
    #[error("the policy {policy:?} refuses {version}@{}", version.manifest())]
    Version {
        policy: PathBuf,
        version: Version,
        keys: Keys,
        store: String,
        /// Whether the image is on this host already.
        fetched: bool,
        source: Refusal,
    },
    /// A whole file of a store.
    #[error("the policy {policy:?} refuses {name} as a whole file, which has no signatures")]
    Whole {
        policy: PathBuf,
        name: String,
        source: Refusal,
    },
    /// A fetched image that is another now.
    #[error("the policy {policy:?} refuses images that changed")]
    Changed {
        policy: PathBuf,
        image: PathBuf,
        version: Version,
        store: String,
        source: Refusal,
    },
    /// An image that came from no store.
    #[error("it came from no store, and the policy {policy:?} refuses images that were made here")]
    Local { policy: PathBuf },
    /// None of the keys that `verify` was given.
    #[error("none of the given keys has signed {version}@{}", version.manifest())]
    NotSigned { version: Version, store: String },
    /// Neither keys nor a policy.
    #[error("there is nothing to verify by: no key is given, and there is no policy")]
    NothingToVerifyBy,
}

impl Refused {
    /// What helps.
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Refused::Version {
                version,
                keys,
                store,
                fetched,
                source,
                ..
            } => {
                if !matches!(source, Refusal::TooFew { .. }) {
                    return vec!["add a rule with keys for that name to the policy".to_owned()];
                }
                let again = fetched.then(|| format!("then fetch it again: {}", fetch(version, store)));
                let sign = format!("{}: {}", keys.that_do(), sign(version, store));
                std::iter::once(sign).chain(again).collect()
            }
            Refused::Whole { name, .. } => vec![format!(
                "have it sent in chunks, where it can be signed: firebrick rootfs upload -l {name} --sign KEY; or allow it: a rule with unsigned = \"allow\""
            )],
            Refused::Changed {
                image,
                version,
                store,
                ..
            } => vec![format!(
                "fetch it again: {} -o {}; if the change is yours, move the file: at another path it counts as made here",
                fetch(version, store),
                image.display()
            )],
            Refused::Local { .. } => {
                vec!["fetch images from a store, or allow these: local = \"allow\" in the policy".to_owned()]
            }
            Refused::NotSigned { version, store } => vec![format!("sign it: {}", sign(version, store))],
            Refused::NothingToVerifyBy => vec!["name keys: --public FILE".to_owned()],
        }
    }
}

impl Keys {
    /// Whose signatures are wanted.
    fn that_do(&self) -> String {
        match self.0.as_slice() {
            [one] => format!("have it signed with the private key of {one}"),
            all => format!("have it signed with private keys of {}", all.join(", ")),
        }
    }
}

fn sign(version: &Version, store: &str) -> String {
    format!(
        "firebrick rootfs sign {version}@{} -b {store} --sign KEY",
        version.manifest()
    )
}

fn fetch(version: &Version, store: &str) -> String {
    format!("firebrick rootfs download -l {version} -b {store}")
}
