//! Packages as their databases describe them.

use std::fmt;

use crate::NodeId;

/// Which world a package is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecosystem {
    /// dpkg: Debian, Ubuntu.
    Deb,
    /// apk: Alpine, Wolfi.
    Apk,
    /// RPM: Fedora, Red Hat, SUSE.
    Rpm,
    /// pip and other installers of Python.
    Pypi,
    /// npm and other installers of Node.js.
    Npm,
    /// Rust crates, built into programs or named by a lock file.
    Cargo,
}

impl Ecosystem {
    /// All of them, those that own files first.
    pub const ALL: [Ecosystem; 6] = [
        Ecosystem::Deb,
        Ecosystem::Apk,
        Ecosystem::Rpm,
        Ecosystem::Pypi,
        Ecosystem::Npm,
        Ecosystem::Cargo,
    ];

    /// The type in a package URL.
    pub fn name(self) -> &'static str {
        match self {
            Ecosystem::Deb => "deb",
            Ecosystem::Apk => "apk",
            Ecosystem::Rpm => "rpm",
            Ecosystem::Pypi => "pypi",
            Ecosystem::Npm => "npm",
            Ecosystem::Cargo => "cargo",
        }
    }
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A place in [`crate::Inventory::packages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub(crate) u32);

impl PackageId {
    /// As an index into something that has a place for each package.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Which world it is of.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// Its version, as its database writes it.
    pub version: String,
    /// What it was built for, where that is told.
    pub architecture: Option<String>,
    /// Name, and version where it is another, of the source package.
    pub source: Option<(String, Option<String>)>,
    /// Licences, each as the database names it. All apply, as far as it tells.
    pub licences: Vec<String>,
    /// Who maintains or made it.
    pub supplier: Option<String>,
    /// Where its project lives.
    pub homepage: Option<String>,
    /// The file that names it. The first one, where several do.
    pub found_in: NodeId,
}

impl Package {
    /// A package of which nothing else is known.
    pub(crate) fn new(ecosystem: Ecosystem, name: String, version: String, found_in: NodeId) -> Package {
        Package {
            ecosystem,
            name,
            version,
            architecture: None,
            source: None,
            licences: Vec::new(),
            supplier: None,
            homepage: None,
            found_in,
        }
    }
}

/// What `os-release` says: whose packages they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// `ID`: `debian`, `alpine`.
    pub id: String,
    /// `VERSION_ID`: `12`, `3.20.3`.
    pub version: Option<String>,
    /// `PRETTY_NAME`.
    pub pretty_name: Option<String>,
}

impl Release {
    /// Reads an `os-release`.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Release> {
        let value = |key: &str| {
            let line = bytes
                .split(|byte| *byte == b'\n')
                .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"="))?;
            let text = crate::text::field(line);
            let bare = ['"', '\'']
                .into_iter()
                .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
                .unwrap_or(&text);
            Some(bare.to_owned()).filter(|text| !text.is_empty())
        };
        Some(Release {
            id: value("ID")?,
            version: value("VERSION_ID"),
            pretty_name: value("PRETTY_NAME"),
        })
    }
}
