//! What is wanted: a [`PackageSet`], checked word by word before any of them reaches a tool.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use firebrick_source::Platform;

use crate::error::BootstrapError;
use crate::time;

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// Alpine Linux.
    Alpine,
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Base {
    /// Its name in small letters, as `os-release` has it.
    pub fn name(self) -> &'static str {
        match self {
            Base::Alpine => "alpine",
            Base::Debian => "debian",
            Base::Ubuntu => "ubuntu",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Base> {
        [Base::Alpine, Base::Debian, Base::Ubuntu]
            .into_iter()
            .find(|base| base.name() == name)
    }

    /// The suite that is taken where none is named.
    pub fn default_suite(self) -> &'static str {
        match self {
            Base::Alpine => "v3.22",
            Base::Debian => "bookworm",
            Base::Ubuntu => "noble",
        }
    }

    /// The parts of its archive that are used where none are named.
    pub fn default_components(self) -> &'static [&'static str] {
        match self {
            Base::Alpine => &["main", "community"],
            Base::Debian => &["main"],
            Base::Ubuntu => &["main", "universe"],
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A moment of an archive that keeps its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// As the snapshot services write it: `20250520T000000Z`.
    text: String,
    seconds: i64,
}

impl Snapshot {
    /// As the snapshot services write it: `20250520T000000Z`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }
}

impl FromStr for Snapshot {
    type Err = BootstrapError;

    /// `20250520T000000Z`, `20250520` or `2025-05-20`.
    fn from_str(word: &str) -> Result<Snapshot, BootstrapError> {
        let digits: String = word.chars().filter(char::is_ascii_digit).collect();
        let rest: String = word.chars().filter(|c| !c.is_ascii_digit()).collect();
        let text = match (rest.as_str(), digits.len()) {
            ("" | "--", 8) => format!("{digits}T000000Z"),
            ("TZ", 14) => word.to_owned(),
            _ => String::new(),
        };
        time::parse_basic(&text)
            .map(|seconds| Snapshot { text, seconds })
            .ok_or_else(|| BootstrapError::Word {
                what: "snapshot",
                word: word.to_owned(),
                expected: "a time in UTC such as 20250520T000000Z, or a day such as 20250520",
            })
    }
}

/// What is to be installed, from where, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSet {
    /// The distribution.
    pub base: Base,
    /// Its release: `bookworm`, `noble`, `v3.22`.
    pub suite: String,
    /// Where from; empty is the base's usual mirrors, or those that this host itself uses.
    ///
    /// For Debian and Ubuntu each is an address, or a whole line as in `sources.list` that starts with `deb `; for Alpine the
    /// address that the suite's name follows.
    pub mirrors: Vec<String>,
    /// The archive as it was then, for Debian and Ubuntu. With mirrors: each keeps snapshots below its address.
    pub snapshot: Option<Snapshot>,
    /// Parts of the archive: `main`, `universe`, `community`.
    pub components: Vec<String>,
    /// Who shall run it.
    pub platform: Platform,
    /// Packages beyond those that every system of the base has.
    pub packages: Vec<String>,
    /// Keys to trust instead of the usual ones: for Debian and Ubuntu a keyring, or a folder of keyrings; for Alpine a folder
    /// of public keys, trusted beside those of its base system.
    pub keys: Option<PathBuf>,
    /// Take packages that nobody has signed.
    pub insecure: bool,
    /// Alpine's base system, which brings `apk` along; without it the mirror's is fetched.
    pub minirootfs: Option<PathBuf>,
}

impl PackageSet {
    /// The base's usual system for this machine, and nothing else.
    pub fn new(base: Base) -> PackageSet {
        PackageSet {
            base,
            suite: base.default_suite().to_owned(),
            mirrors: Vec::new(),
            snapshot: None,
            components: base
                .default_components()
                .iter()
                .map(ToString::to_string)
                .collect(),
            platform: Platform::host(),
            packages: Vec::new(),
            keys: None,
            insecure: false,
            minirootfs: None,
        }
    }

    /// What it is, for people: `debian bookworm`.
    pub fn title(&self) -> String {
        format!("{} {}", self.base, self.suite)
    }

    /// What the base calls the platform's processor.
    ///
    /// # Errors
    /// [`BootstrapError::Platform`] if the base does not run there.
    pub(crate) fn architecture(&self) -> Result<&'static str, BootstrapError> {
        let Platform {
            os,
            architecture,
            variant,
            ..
        } = &self.platform;
        let known = match (os.as_str(), architecture.as_str(), variant.as_deref()) {
            ("linux", "amd64" | "x86_64", _) => Some(("amd64", "x86_64")),
            ("linux", "arm64" | "aarch64", _) => Some(("arm64", "aarch64")),
            ("linux", "arm", Some("v6" | "v5")) => Some(("armel", "armhf")),
            ("linux", "arm", _) => Some(("armhf", "armv7")),
            ("linux", "386", _) => Some(("i386", "x86")),
            ("linux", "ppc64le", _) => Some(("ppc64el", "ppc64le")),
            ("linux", "riscv64", _) => Some(("riscv64", "riscv64")),
            ("linux", "s390x", _) => Some(("s390x", "s390x")),
            _ => None,
        };
        known
            .map(|(debian, alpine)| match self.base {
                Base::Alpine => alpine,
                Base::Debian | Base::Ubuntu => debian,
            })
            .ok_or_else(|| BootstrapError::Platform {
                base: self.base,
                platform: Box::new(self.platform.clone()),
            })
    }

    /// Checks every word: none may be taken for an option, a path or a pattern by the tool that gets it.
    pub(crate) fn check(&self) -> Result<(), BootstrapError> {
        let word = |what, word: &str, allowed: &str, expected| {
            let good = word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || allowed.contains(c))
                && !word.contains("..");
            match good {
                true => Ok(()),
                false => Err(BootstrapError::Word {
                    what,
                    word: word.to_owned(),
                    expected,
                }),
            }
        };
        word("suite", &self.suite, "._-/", "a release's name such as bookworm")?;
        for component in &self.components {
            word(
                "component",
                component,
                "._-/",
                "a part of the archive such as main",
            )?;
        }
        for package in &self.packages {
            let allowed = match self.base {
                Base::Alpine => "+._-=<>~@:",
                Base::Debian | Base::Ubuntu => "+._-=~:/",
            };
            word("package", package, allowed, "a package's name such as python3")?;
        }
        if self.base == Base::Alpine && self.snapshot.is_some() {
            return Err(BootstrapError::NoSnapshots);
        }
        self.mirrors
            .iter()
            .try_for_each(|mirror| self.check_mirror(mirror))
    }

    fn check_mirror(&self, mirror: &str) -> Result<(), BootstrapError> {
        let wrong = |expected| BootstrapError::Word {
            what: "mirror",
            word: mirror.to_owned(),
            expected,
        };
        let is_line = mirror.starts_with("deb ") && self.base != Base::Alpine;
        if mirror.chars().any(char::is_control) {
            return Err(wrong("one line of text"));
        }
        if !is_line && (!mirror.contains("://") || mirror.contains([' ', '"', '[', ']'])) {
            return Err(wrong("an address such as http://mirror.example/debian"));
        }
        // What apt calls `trusted`, and what weakens its checks, is one decision, and is asked for by one name.
        let options = mirror.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let weakens = [
            "trusted",
            "allow-insecure",
            "allow-weak",
            "allow-downgrade-to-insecure",
        ];
        let names = options.map(|(options, _)| options.to_ascii_lowercase());
        let weakened = names.is_some_and(|names| {
            names
                .split_whitespace()
                .any(|option| weakens.contains(&option.split('=').next().unwrap_or_default()))
        });
        match weakened && !self.insecure {
            true => Err(BootstrapError::Trusting {
                mirror: mirror.to_owned(),
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_a_time_or_a_day() {
        for (word, text, seconds) in [
            ("20250520T000000Z", "20250520T000000Z", 1_747_699_200),
            ("20250520T235959Z", "20250520T235959Z", 1_747_785_599),
            ("20250520", "20250520T000000Z", 1_747_699_200),
            ("2025-05-20", "20250520T000000Z", 1_747_699_200),
        ] {
            let snapshot: Snapshot = word.parse().unwrap();
            assert_eq!((snapshot.text(), snapshot.seconds()), (text, seconds));
        }
        for bad in [
            "",
            "today",
            "20251320",
            "20250230",
            "2025052",
            "20250520T250000Z",
            "2025/05/20",
            "2025T0520000000Z",
        ] {
            assert!(bad.parse::<Snapshot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_word_is_taken_for_something_else() {
        let set = PackageSet::new(Base::Debian);
        let with = |package: &str| PackageSet {
            packages: vec![package.to_owned()],
            ..set.clone()
        };
        for good in [
            "python3",
            "libstdc++6",
            "vim=2:9.0-1~deb12u1",
            "curl/bookworm-security",
            "gcc:arm64",
        ] {
            with(good).check().unwrap();
        }
        for bad in [
            "",
            "-y",
            "--root=/",
            "./x.deb",
            "/x.deb",
            "?essential",
            "~n.",
            "a b",
            "a,b",
            "a*",
            "a;b",
            "../x",
            "a/../b",
        ] {
            assert!(with(bad).check().is_err(), "{bad}");
        }
        for bad in ["", "-x", "../../x", "a b", "$(id)"] {
            let suite = PackageSet {
                suite: bad.to_owned(),
                ..set.clone()
            };
            assert!(suite.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn signatures_are_given_up_by_one_name_only() {
        let set = |mirror: &str, insecure| PackageSet {
            mirrors: vec![mirror.to_owned()],
            insecure,
            ..PackageSet::new(Base::Debian)
        };
        for line in [
            "deb [trusted=yes] http://x/ a main",
            "deb [ arch=amd64 Trusted=yes ] http://x/ a main",
            "deb [allow-insecure=yes] http://x/ a main",
        ] {
            assert!(
                matches!(set(line, false).check(), Err(BootstrapError::Trusting { .. })),
                "{line}"
            );
            set(line, true).check().unwrap();
        }
        set("deb [signed-by=/k.gpg] http://x/ a main", false)
            .check()
            .unwrap();
        set("http://x/debian", false).check().unwrap();
        for bad in [
            "x",
            "/srv/mirror",
            "http://x/ y",
            "deb http://x/ a main\ndeb http://y/ a main",
            "[trusted=yes] http://x",
        ] {
            assert!(set(bad, false).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_have_the_bases_own_names() {
        let name = |base, platform: &str| {
            let set = PackageSet {
                platform: platform.parse().unwrap(),
                ..PackageSet::new(base)
            };
            set.architecture().ok()
        };
        assert_eq!(name(Base::Debian, "linux/amd64"), Some("amd64"));
        assert_eq!(name(Base::Alpine, "linux/amd64"), Some("x86_64"));
        assert_eq!(name(Base::Ubuntu, "linux/arm/v7"), Some("armhf"));
        assert_eq!(name(Base::Alpine, "linux/arm64"), Some("aarch64"));
        assert_eq!(name(Base::Debian, "linux/mips"), None);
        assert_eq!(name(Base::Debian, "windows/amd64"), None);
    }
}
