//! Fetches a kernel package with apt: as any user, into a folder of ours, without installing.
//!
//! apt checks the package against the distribution's signed lists; firebrick adds no trust of its own. Where the
//! system's lists do not know the package (fresh containers have none), lists of our own are fetched into the
//! temporary folder with the system's sources and keys, which needs no root either.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kernel, KernelError, is_plain_name};
use crate::arch::Arch;

/// The end of what apt said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AptSaid(String);

/// The meta package whose dependency is the current cloud kernel.
fn meta(arch: Arch) -> String {
    format!("linux-image-cloud-{}", arch.debian_name())
}

/// What came of fetching.
pub(super) enum Fetched {
    /// The package's path.
    Package(PathBuf),
    /// It was not needed.
    AlreadyThere(Kernel),
}

/// apt, with a set of lists.
struct Apt<'a> {
    dir: &'a Path,
    arch: Arch,
    lists: Lists,
}

/// Whose lists apt reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lists {
    /// The system's.
    System,
    /// Our own, of the system's sources.
    Own,
    /// Our own, of another release of the distribution on the same mirror.
    Suite(&'static str),
}

/// Debian's releases, whose kernels differ: 6.12, 6.1, 5.10.
const SUITES: [&str; 3] = ["trixie", "bookworm", "bullseye"];

/// Where the keys of all of them are.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What is told of the work.
pub(super) struct Listener<'a> {
    /// Asked with the SHA-256 that the lists promise, in hex; where it has the kernel, nothing is downloaded.
    pub(super) have: &'a dyn Fn(&str) -> Option<Kernel>,
    /// Lists are fetched, of another release if it has a name.
    pub(super) on_update: &'a dyn Fn(Option<&'static str>),
    /// A package is fetched.
    pub(super) on_download: &'a dyn Fn(&str),
}

/// Downloads the cloud kernel package into `dir` and gives its path.
///
/// `version` is the beginning of a kernel release (`6.1`, `6.12.3`), or `None` for the distribution's current one. A version
/// that this release of the distribution lacks is looked for in others.
pub(super) fn fetch(
    dir: &Path,
    arch: Arch,
    version: Option<&str>,
    listener: &Listener<'_>,
) -> Result<Fetched, KernelError> {
    let with = |lists| Apt { dir, arch, lists };
    // The system's lists are about this processor. For it they may be absent, too, or old: the mirror forgets a kernel when
    // a security fix replaces it.
    if arch == Arch::HOST {
        match with(Lists::System).attempt(version, listener) {
            Err(KernelError::Apt { .. } | KernelError::NoSuchVersion { .. }) => {}
            outcome => return outcome,
        }
    }
    (listener.on_update)(None);
    let own = with(Lists::Own);
    own.update()?;
    let mut failure = match own.attempt(version, listener) {
        Err(error @ KernelError::NoSuchVersion { .. }) if version.is_some() => error,
        outcome => return outcome,
    };
    for suite in SUITES {
        let other = with(Lists::Suite(suite));
        if !other.write_sources(suite)? {
            continue;
        }
        (listener.on_update)(Some(suite));
        // A mirror need not have them all.
        if other.update().is_err() {
            continue;
        }
        match other.attempt(version, listener) {
            Err(KernelError::NoSuchVersion { known: more, .. }) => failure = more_known(failure, more),
            outcome => return outcome,
        }
    }
    Err(failure)
}

fn more_known(error: KernelError, more: Vec<String>) -> KernelError {
    match error {
        KernelError::NoSuchVersion { wanted, mut known } => {
            known.extend(more);
            known.sort_by_key(|name| numbers(name));
            known.dedup();
            KernelError::NoSuchVersion { wanted, known }
        }
        other => other,
    }
}

/// The lines of a `sources.list` for `suite` on the mirrors of the system's sources (`REPOSITORY RELEASE` a line); none if
/// they have it already, or are no Debian.
fn sources_of(targets: &str, suite: &str) -> Vec<String> {
    let pairs: Vec<(&str, &str)> = targets
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .collect();
    let base = |release: &str| {
        let base = release.split('-').next()?;
        SUITES.into_iter().find(|known| *known == base)
    };
    if pairs.iter().any(|(_, release)| base(release) == Some(suite)) {
        return Vec::new();
    }
    let signed = match Path::new(KEYRING).is_file() {
        true => format!("[signed-by={KEYRING}] "),
        false => String::new(),
    };
    let line = |(uri, release): &(&str, &str)| {
        let own = base(release)?;
        let other = release.replace(own, suite);
        // Updates are for the current release only.
        let wanted = other == suite || other == format!("{suite}-security");
        wanted.then(|| format!("deb {signed}{uri} {other} main"))
    };
    let mut lines: Vec<String> = pairs.iter().filter_map(line).collect();
    lines.sort();
    lines.dedup();
    lines
}

impl Apt<'_> {
    fn attempt(&self, version: Option<&str>, listener: &Listener<'_>) -> Result<Fetched, KernelError> {
        let package = self.choose(version)?;
        let promised = self.promised_digest(&package);
        if let Some(kernel) = promised.and_then(|digest| (listener.have)(&digest)) {
            return Ok(Fetched::AlreadyThere(kernel));
        }
        (listener.on_download)(&package);
        self.download(&package).map(Fetched::Package)
    }

    /// The folder for lists of our own; the system's are elsewhere.
    fn folder(&self) -> PathBuf {
        match self.lists {
            Lists::System | Lists::Own => self.dir.to_owned(),
            Lists::Suite(suite) => self.dir.join(suite),
        }
    }

    /// Writes the sources of another release; `false` if there are none to be had.
    fn write_sources(&self, suite: &str) -> Result<bool, KernelError> {
        let system = Apt {
            dir: self.dir,
            arch: Arch::HOST,
            lists: Lists::System,
        };
        let format = "$(REPO_URI) $(RELEASE)";
        let targets = system.run(
            "apt-get",
            &["indextargets", "--format", format, "Created-By: Packages"],
        )?;
        let lines = sources_of(&targets, suite);
        if lines.is_empty() {
            return Ok(false);
        }
        let folder = self.folder();
        std::fs::create_dir_all(&folder).map_err(KernelError::host("create", &folder))?;
        let path = folder.join("sources.list");
        std::fs::write(&path, lines.join("\n") + "\n").map_err(KernelError::host("write", &path))?;
        Ok(true)
    }

    fn choose(&self, version: Option<&str>) -> Result<String, KernelError> {
        let Some(wanted) = version else {
            let meta = meta(self.arch);
            let text = match self.run("apt-cache", &["depends", "--important", &meta]) {
                // Other distributions have apt, too, and no such package.
                Err(KernelError::Apt { source, .. }) if source.0.contains("No packages found") => {
                    String::new()
                }
                outcome => outcome?,
            };
            let depends = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Depends:"))
                .map(str::trim);
            let package = depends
                .filter(|name| is_plain_name(name))
                .find(|name| is_kernel(name, self.arch));
            return package
                .map(str::to_owned)
                .ok_or_else(|| KernelError::NoSuchVersion {
                    wanted: meta,
                    known: Vec::new(),
                });
        };
        let text = self.run("apt-cache", &["pkgnames", "linux-image-"])?;
        let mut known: Vec<String> = text
            .lines()
            .filter(|name| is_plain_name(name) && is_kernel(name, self.arch))
            .map(str::to_owned)
            .collect();
        known.sort_by_key(|name| numbers(name));
        let prefix = format!("linux-image-{wanted}");
        let matches = |name: &&String| {
            // 6.1 must not take 6.12: what follows the prefix has to end the number.
            name.strip_prefix(&prefix)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        match known.iter().rev().find(matches) {
            Some(name) => Ok(name.clone()),
            None => Err(KernelError::NoSuchVersion {
                wanted: wanted.to_owned(),
                known,
            }),
        }
    }

    /// The SHA-256 of the package that `download` would fetch, where the lists tell it.
    fn promised_digest(&self, package: &str) -> Option<String> {
        let text = self
            .run("apt-cache", &["show", "--no-all-versions", package])
            .ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("SHA256: "))
            .map(|digest| digest.trim().to_owned())
    }

    fn download(&self, package: &str) -> Result<PathBuf, KernelError> {
        self.run("apt-get", &["download", package])?;
        let entries = std::fs::read_dir(self.dir).map_err(KernelError::host("list", self.dir))?;
        let is_deb = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
        let mut found = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(is_deb);
        found.next().ok_or_else(|| KernelError::NoKernel {
            path: self.dir.to_owned(),
            reason: format!("apt-get download {package} left no package there"),
        })
    }

    fn update(&self) -> Result<(), KernelError> {
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = self.folder().join(name);
            std::fs::create_dir_all(&path).map_err(KernelError::host("create", &path))?;
        }
        self.run("apt-get", &["update"]).map(drop)
    }

    fn run(&self, program: &'static str, args: &[&str]) -> Result<String, KernelError> {
        let mut command = Command::new(program);
        command.current_dir(self.dir).env("LC_ALL", "C").args(args).args([
            "-q",
            "-o",
            "APT::Sandbox::User=root",
        ]);
        let folder = self.folder();
        let mut option = |key: &str, value: &Path| {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        };
        if self.lists != Lists::System {
            option("Dir::State::lists", &folder.join("lists"));
            option("Dir::Cache", &folder.join("cache"));
        }
        if let Lists::Suite(_) = self.lists {
            option("Dir::Etc::sourcelist", &folder.join("sources.list"));
            option("Dir::Etc::sourceparts", Path::new("/dev/null"));
        }
        if self.arch != Arch::HOST {
            let name = self.arch.debian_name();
            for key in ["APT::Architecture", "APT::Architectures"] {
                command.arg("-o").arg(format!("{key}={name}"));
            }
        }
        crate::process::end_with_us(&mut command);
        let output = command
            .output()
            .map_err(|source| KernelError::NoApt { program, source })?;
        if !output.status.success() {
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            let said = String::from_utf8_lossy(&said);
            // Other lists would fill the disk no less.
            if said.contains("No space left on device") || said.contains("enough free space") {
                let full = std::io::Error::from(rustix::io::Errno::NOSPC);
                return Err(KernelError::host("download packages into", self.dir)(full));
            }
            let tail: Vec<&str> = said
                .lines()
                .rev()
                .filter(|line| !line.trim().is_empty())
                .take(3)
                .collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("; ");
            return Err(KernelError::Apt {
                command: format!("{program} {}", args.join(" ")),
                exit: output.status.code(),
                source: AptSaid(tail),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether a package is a signed cloud kernel itself: meta packages have no number behind the prefix.
fn is_kernel(name: &str, arch: Arch) -> bool {
    let versioned = name
        .strip_prefix("linux-image-")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    versioned && name.ends_with(&format!("-cloud-{}", arch.debian_name()))
}

/// The numbers in a package's name, to sort by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_from_meta_packages() {
        assert!(is_kernel("linux-image-6.1.0-56-cloud-amd64", Arch::X86_64));
        assert!(is_kernel("linux-image-6.1.0-56-cloud-arm64", Arch::Aarch64));
        assert!(!is_kernel("linux-image-6.1.0-56-cloud-amd64", Arch::Aarch64));
        assert!(!is_kernel("linux-image-cloud-amd64", Arch::X86_64));
        assert!(!is_kernel("linux-image-6.1.0-56-cloud-amd64-dbg", Arch::X86_64));
        assert!(!is_kernel("linux-image-6.1.0-56-amd64", Arch::X86_64));
        assert!(!is_kernel(
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            Arch::X86_64
        ));
    }

    #[test]
    fn other_releases_are_asked_of_the_same_mirrors() {
        let targets = "http://m/debian/ bookworm\nhttp://m/debian/ bookworm-updates\nhttp://s/sec/ bookworm-security\n\
                       http://else/ sdk-bookworm\nhttp://else/ nodistro\n";
        let lines = sources_of(targets, "bullseye");
        let ends: Vec<String> = lines
            .iter()
            .map(|line| {
                line.split(' ')
                    .filter(|word| !word.starts_with('['))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            ends,
            [
                "deb http://m/debian/ bullseye main",
                "deb http://s/sec/ bullseye-security main"
            ]
        );
        assert_eq!(sources_of(targets, "bookworm"), Vec::<String>::new());
        assert_eq!(
            sources_of("http://u/ubuntu noble\n", "bullseye"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn versions_sort_by_number() {
        let mut names = [
            "linux-image-6.1.0-56-x",
            "linux-image-6.12.0-1-x",
            "linux-image-6.1.0-9-x",
        ];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(
            names,
            [
                "linux-image-6.1.0-9-x",
                "linux-image-6.1.0-56-x",
                "linux-image-6.12.0-1-x"
            ]
        );
    }
}
