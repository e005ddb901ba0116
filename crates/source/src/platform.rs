//! Operating system, processor and variant: what an image index is chosen by.
//!
//! Words differ between worlds (`x86_64` and `amd64`, `aarch64` and `arm64/v8`); a [`Platform`] is kept as it was
//! written and compared in one normal form.

use std::fmt;
use std::str::FromStr;

/// A platform as OCI names it, e.g. `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The operating system, e.g. `linux`.
    pub os: String,
    /// The processor in Go's words, e.g. `amd64`.
    pub architecture: String,
    /// The processor's variant, e.g. `v7` for `arm`.
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a platform: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, e.g. linux/arm64")]
pub struct ParsePlatformError {
    text: String,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image for `offered` runs on this platform: `None` if not at all, else 0 for an exact match and
    /// more for older variants of the same processor.
    pub(crate) fn distance_to(&self, offered: &Platform) -> Option<u32> {
        let (wanted_arch, wanted_level) = self.normal();
        let (offered_arch, offered_level) = offered.normal();
        if self.os != offered.os || wanted_arch != offered_arch {
            return None;
        }
        match (wanted_level, offered_level) {
            (Level::Number(wanted), Level::Number(offered)) => wanted.checked_sub(offered),
            (wanted, offered) => (wanted == offered).then_some(0),
        }
    }

    /// Whether operating system and processor agree, whatever the variants.
    pub(crate) fn same_processor(&self, other: &Platform) -> bool {
        self.os == other.os && self.normal().0 == other.normal().0
    }

    fn normal(&self) -> (&str, Level<'_>) {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        let (architecture, implied) = match self.architecture.as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64", "v1"),
            "i386" | "i686" | "386" => ("386", ""),
            "aarch64" | "arm64" => ("arm64", "v8"),
            "armhf" | "armv7" | "armv7l" | "arm" => ("arm", "v7"),
            "armel" | "armv6" | "armv6l" => ("arm", "v6"),
            other => (other, ""),
        };
        let variant = variant.unwrap_or(implied);
        let digits = variant.strip_prefix('v').unwrap_or(variant);
        let level = match digits.parse::<u32>() {
            Ok(number) => Level::Number(number),
            Err(_) => Level::Word(variant),
        };
        (architecture, level)
    }
}

#[derive(PartialEq, Eq)]
enum Level<'a> {
    Number(u32),
    Word(&'a str),
}

impl Default for Platform {
    fn default() -> Platform {
        Platform::host()
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Platform, ParsePlatformError> {
        let error = || ParsePlatformError {
            text: text.chars().take(100).collect(),
        };
        let mut parts = text.split('/');
        let mut next = || parts.next().map(str::to_lowercase);
        let (os, architecture, variant) = (next(), next(), next());
        let well_formed = |part: &String| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        match (os, architecture) {
            (Some(os), Some(architecture))
                if [&os, &architecture].into_iter().chain(&variant).all(well_formed)
                    && parts.next().is_none() =>
            {
                Ok(Platform {
                    os,
                    architecture,
                    variant,
                })
            }
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(wanted: &str, offered: &str) -> Option<u32> {
        wanted
            .parse::<Platform>()
            .unwrap()
            .distance_to(&offered.parse().unwrap())
    }

    #[test]
    fn variants_choose_the_best_that_runs() {
        for (wanted, offered, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/x86_64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/aarch64", "linux/arm64", Some(0)),
            ("linux/arm64/v9", "linux/arm64", Some(1)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/arm", "linux/arm/v7", Some(0)),
            ("linux/arm/v7", "linux/arm", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v7", "linux/arm/v5", Some(2)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/mips64le/hardfloat", "linux/mips64le/hardfloat", Some(0)),
            ("linux/mips64le/hardfloat", "linux/mips64le", None),
            ("linux/amd64", "unknown/unknown", None),
        ] {
            assert_eq!(distance(wanted, offered), expected, "{wanted} from {offered}");
        }
    }

    #[test]
    fn parse_refuses_what_is_not_a_platform() {
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/arm/v7/x",
            "linux/a b",
            "linux/arm/",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
        assert_eq!(
            "Linux/ARM64/v8".parse::<Platform>().unwrap().to_string(),
            "linux/arm64/v8"
        );
    }
}
