//! What a Dockerfile is given from outside: values for its `ARG`s, and the platforms that BuildKit tells it.

use std::collections::{BTreeMap, BTreeSet};

/// A platform, as a Dockerfile is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformWords {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`; empty for most.
    pub variant: String,
}

/// What a Dockerfile is read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Values for its `ARG`s.
    pub arguments: BTreeMap<String, String>,
    /// What the image is for: `TARGETPLATFORM` and its parts.
    pub target: PlatformWords,
    /// What this machine is: `BUILDPLATFORM` and its parts.
    pub build: PlatformWords,
}

impl Given {
    /// The variables that are there before the first `ARG`. Arguments of their names count instead.
    pub(super) fn predefined(&self) -> BTreeMap<String, String> {
        let of = |prefix: &str, platform: &PlatformWords| {
            let PlatformWords {
                os,
                architecture,
                variant,
            } = platform;
            let mut whole = format!("{os}/{architecture}");
            if !variant.is_empty() {
                whole = format!("{whole}/{variant}");
            }
            [
                (format!("{prefix}PLATFORM"), whole),
                (format!("{prefix}OS"), os.clone()),
                (format!("{prefix}ARCH"), architecture.clone()),
                (format!("{prefix}VARIANT"), variant.clone()),
            ]
        };
        let told = of("TARGET", &self.target)
            .into_iter()
            .chain(of("BUILD", &self.build));
        told.map(|(name, value)| {
            let value = self.arguments.get(&name).cloned().unwrap_or(value);
            (name, value)
        })
        .collect()
    }

    /// Sentences about arguments that no `ARG` of these names takes.
    pub(super) fn unused(&self, taken: &BTreeSet<String>) -> Vec<String> {
        let predefined = self.predefined();
        let is_unused = |name: &&String| !taken.contains(*name) && !predefined.contains_key(*name);
        self.arguments
            .keys()
            .filter(is_unused)
            .map(|name| format!("--build-arg {name} is not used: the Dockerfile has no ARG of that name"))
            .collect()
    }
}
