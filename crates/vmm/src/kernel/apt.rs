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

/// apt with its lists either the system's or our own.
struct Apt<'a> {
    dir: &'a Path,
    arch: Arch,
    own_lists: bool,
}

/// Downloads the cloud kernel package into `dir` and gives its path.
///
/// `version` is the beginning of a kernel release (`6.1`, `6.12.3`), or `None` for the distribution's current one.
///
/// `have` is asked with the SHA-256 that the lists promise, in hex; where it has the kernel, nothing is downloaded.
pub(super) fn fetch(
    dir: &Path,
    arch: Arch,
    version: Option<&str>,
    have: &dyn Fn(&str) -> Option<Kernel>,
    on_update: &dyn Fn(),
    on_download: &dyn Fn(&str),
) -> Result<Fetched, KernelError> {
    let with = |own_lists| Apt { dir, arch, own_lists };
    let attempt = |apt: &Apt<'_>| {
        let package = apt.choose(version)?;
        if let Some(kernel) = apt.promised_digest(&package).and_then(|digest| have(&digest)) {
            return Ok(Fetched::AlreadyThere(kernel));
        }
        on_download(&package);
        apt.download(&package).map(Fetched::Package)
    };
    // The system's lists are about this processor. For it they may be absent, too, or old: the mirror forgets a kernel when
    // a security fix replaces it.
    let first = (arch == Arch::HOST).then(|| attempt(&with(false)));
    match first {
        Some(Ok(fetched)) => Ok(fetched),
        None | Some(Err(KernelError::Apt { .. } | KernelError::NoSuchVersion { .. })) => {
            on_update();
            let own = with(true);
            own.update()?;
            attempt(&own)
        }
        Some(Err(error)) => Err(error),
    }
}

impl Apt<'_> {
    fn choose(&self, version: Option<&str>) -> Result<String, KernelError> {
        let Some(wanted) = version else {
            let meta = meta(self.arch);
            let text = self.run("apt-cache", &["depends", "--important", &meta])?;
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
            let path = self.dir.join(name);
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
        if self.own_lists {
            let option = |key: &str, name: &str| format!("{key}={}", self.dir.join(name).display());
            command.arg("-o").arg(option("Dir::State::lists", "lists"));
            command.arg("-o").arg(option("Dir::Cache", "cache"));
        }
        if self.arch != Arch::HOST {
            let name = self.arch.debian_name();
            for key in ["APT::Architecture", "APT::Architectures"] {
                command.arg("-o").arg(format!("{key}={name}"));
            }
        }
        let output = command
            .output()
            .map_err(|source| KernelError::NoApt { program, source })?;
        if !output.status.success() {
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            let said = String::from_utf8_lossy(&said);
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
