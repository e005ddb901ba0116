//! The guest's kernel: where it comes from, what of it a microVM needs, and where it is kept.
//!
//! A *kernel* is a folder `<state>/kernels/<release>/`:
//!
//! ```text
//! vmlinux            the ELF kernel (or bzImage, where the ELF cannot be started directly; or Image, for ARM)
//! modules/NAME.ko    plain modules, only those a guest loads
//! config             the kernel's configuration, where the package or the kernel has it
//! kernel.json        what all this is: release, origin, digests, modules in load order
//! ```
//!
//! `<state>/kernels/default` is a symbolic link to the one that boots use, and `default-aarch64` (on another host
//! `default-x86_64`) to the one for guests of another processor. [`setup`] fills such a folder beside its
//! final place and exchanges the two, so that a kernel is there whole or not at all, and running VMs keep theirs.

mod apt;
pub mod arm_image;
pub mod bzimage;
mod config;
pub mod deb;
pub mod decompress;
pub mod elf;
mod install;
mod kernel_file;
pub mod modules;
mod needs;
mod package;
mod setup;

use std::io;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;

pub use config::Config;
pub(crate) use install::replace_file;
pub use needs::{Lack, Loss};
pub use setup::{SetupEvent, SetupRequest, Source, setup};

/// No kernel's release is longer: `uname` has no room for more.
const RELEASE_LEN: usize = 64;

/// The layout version of `kernel.json`; another one is set up anew.
const MANIFEST_VERSION: u32 = 1;

/// How a kernel file is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An ELF file with a PVH entry.
    Elf,
    /// A `bzImage`, which decompresses itself.
    BzImage,
    /// An ARM `Image`.
    Image,
}

/// Where a kernel came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Origin {
    /// A Debian package.
    Package {
        /// The file's name: package, version and architecture.
        file: String,
        /// SHA-256 of the package.
        digest: String,
    },
    /// A kernel file of the caller's.
    File {
        /// The file's path when it was taken.
        path: PathBuf,
        /// SHA-256 of the file.
        digest: String,
    },
}

/// One module of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name in normal form; the file is `modules/NAME.ko`.
    pub name: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the file.
    pub digest: String,
}

/// The contents of `kernel.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `MANIFEST_VERSION` of the writer.
    pub version: u32,
    /// As `uname -r` says in the guest.
    pub release: String,
    /// What it runs on. Kernels that an earlier firebrick set up do not tell: those are all for x86-64.
    #[serde(default = "x86_64")]
    pub arch: Arch,
    /// The kernel file's name within the folder.
    pub file: String,
    /// How it is started.
    pub format: Format,
    /// Length of the kernel file in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the kernel file.
    pub digest: String,
    /// Where it came from.
    pub origin: Origin,
    /// The modules in load order.
    pub modules: Vec<Module>,
    /// Modules that a guest could use and that this kernel has in no form.
    pub missing: Vec<String>,
}

fn x86_64() -> Arch {
    Arch::X86_64
}

/// The name of the link to the kernel for guests of this processor.
fn default_link(arch: Arch) -> String {
    match arch {
        Arch::HOST => "default".to_owned(),
        other => format!("default-{other}"),
    }
}

/// A kernel that has been set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    dir: PathBuf,
    manifest: Manifest,
}

/// Why a kernel cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has been set up in this state folder.
    #[error("no kernel {}has been set up in {}", for_other(*arch), dir.display())]
    NotSetUp {
        /// The folder looked into.
        dir: PathBuf,
        /// What it should run on.
        arch: Arch,
    },
    /// A kernel's folder is not as `kernel.json` says.
    #[error("kernel folder {} is damaged: {reason}", dir.display())]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The package cannot be read.
    #[error("cannot read kernel package {}", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// Why.
        source: deb::DebError,
    },
    /// The stream of the package's files is broken.
    #[error("kernel package {} is damaged", path.display())]
    PackageStream {
        /// The package.
        path: PathBuf,
        /// What the decoder says.
        source: io::Error,
    },
    /// The package holds no kernel, or is otherwise not as kernel packages are.
    #[error("{} is not a usable kernel package: {reason}", path.display())]
    NoKernel {
        /// The package.
        path: PathBuf,
        /// What is missing or too large.
        reason: String,
    },
    /// The kernel file cannot be taken apart.
    #[error("cannot use kernel file {name}")]
    BzImage {
        /// The file's name.
        name: String,
        /// Why.
        source: bzimage::BzImageError,
    },
    /// A file that is no kernel.
    #[error("{name} is neither an x86 bzImage, nor an x86 ELF kernel, nor an ARM Image")]
    Format {
        /// The file's name.
        name: String,
    },
    /// The kernel lacks what no guest can do without.
    #[error("kernel {release} has no {} (neither as a module nor built in)", missing.join(", "))]
    Lacks {
        /// The kernel's release.
        release: String,
        /// Names of the missing modules.
        missing: Vec<String>,
    },
    /// apt knows no such kernel, or cannot fetch it.
    #[error("{command} failed{}", exit.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    Apt {
        /// What was run.
        command: String,
        /// Its exit code.
        exit: Option<i32>,
        /// The end of what it said.
        source: apt::AptSaid,
    },
    /// There is no apt here.
    #[error("cannot run {program}")]
    NoApt {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No kernel package of that version.
    #[error(
        "no cloud kernel package {wanted} is known to apt; it knows {}",
        series(known)
    )]
    NoSuchVersion {
        /// What was asked for.
        wanted: String,
        /// Packages that there are.
        known: Vec<String>,
    },
    /// A file or folder of the host's.
    #[error("cannot {action} {}", path.display())]
    Host {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

pub use apt::AptSaid;

fn for_other(arch: Arch) -> String {
    match arch {
        Arch::HOST => String::new(),
        other => format!("for {other} "),
    }
}

impl KernelError {
    /// Wraps an [`io::Error`] with what was tried on which path.
    pub(crate) fn host(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
        let path = path.to_owned();
        move |source| KernelError::Host { action, path, source }
    }
}

impl Kernel {
    /// Opens the kernel in folder `dir` and checks that its files are there with their lengths.
    ///
    /// # Errors
    /// [`KernelError::NotSetUp`] if there is none, [`KernelError::Damaged`] if it is not whole.
    pub fn open(dir: &Path) -> Result<Kernel, KernelError> {
        let damaged = |reason: String| KernelError::Damaged {
            dir: dir.to_owned(),
            reason,
        };
        let json = match std::fs::read(dir.join("kernel.json")) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KernelError::NotSetUp {
                    dir: dir.to_owned(),
                    arch: Arch::HOST,
                });
            }
            Err(error) => return Err(KernelError::host("read", &dir.join("kernel.json"))(error)),
        };
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| damaged(format!("kernel.json: {error}")))?;
        if manifest.version != MANIFEST_VERSION {
            return Err(damaged(format!("kernel.json has version {}", manifest.version)));
        }
        let kernel = Kernel {
            dir: dir.to_owned(),
            manifest,
        };
        for (path, size_bytes, _) in kernel.files() {
            match std::fs::metadata(&path) {
                Ok(meta) if meta.len() == size_bytes => {}
                Ok(meta) => {
                    let name = path.display();
                    return Err(damaged(format!(
                        "{name} has {} bytes, not {size_bytes}",
                        meta.len()
                    )));
                }
                Err(error) => return Err(damaged(format!("{}: {error}", path.display()))),
            }
        }
        Ok(kernel)
    }

    /// The kernel that boots use in the state folder `state`.
    ///
    /// # Errors
    /// As [`Kernel::open`].
    pub fn default_of(state: &Path) -> Result<Kernel, KernelError> {
        Kernel::default_for(state, Arch::HOST)
    }

    /// The kernel that guests of processor `arch` use.
    ///
    /// # Errors
    /// As [`Kernel::open`].
    pub fn default_for(state: &Path, arch: Arch) -> Result<Kernel, KernelError> {
        let kernels = state.join("kernels");
        let link = kernels.join(default_link(arch));
        match std::fs::read_link(&link) {
            Ok(target) => Kernel::open(&kernels.join(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(KernelError::NotSetUp { dir: kernels, arch })
            }
            Err(error) => Err(KernelError::host("read", &link)(error)),
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file to start.
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.manifest.file)
    }

    /// The path of a module of this kernel.
    pub fn module_path(&self, module: &Module) -> PathBuf {
        self.dir.join("modules").join(format!("{}.ko", module.name))
    }

    /// Whether a guest with this kernel can speak vsock. A kernel file without modules may, but does not tell.
    pub fn has_vsock(&self) -> bool {
        self.manifest
            .modules
            .iter()
            .any(|module| module.name == "vmw_vsock_virtio_transport")
    }

    /// The kernel's configuration, where it is known.
    pub fn config(&self) -> Option<Config> {
        std::fs::read_to_string(self.dir.join("config"))
            .ok()
            .map(|text| Config::parse(&text))
    }

    /// The first two numbers of its release: `(6, 1)`.
    pub fn version(&self) -> Option<(u32, u32)> {
        version_of(&self.release())
    }

    /// Its release. A kernel file that was taken as it is tells it in its banner, or else has only the name of its folder.
    pub fn release(&self) -> String {
        let name = &self.manifest.release;
        match version_of(name) {
            Some(_) => name.clone(),
            None => self.banner().unwrap_or_else(|| name.clone()),
        }
    }

    /// The release in the kernel's banner, as far as it is plain text.
    fn banner(&self) -> Option<String> {
        let bytes = std::fs::read(self.path()).ok()?;
        let mark = b"Linux version ";
        let at = bytes
            .windows(mark.len())
            .enumerate()
            .filter(|(_, window)| window == mark)
            .map(|(at, _)| at);
        let release = |at: usize| {
            let rest = bytes.get(at..)?.strip_prefix(mark)?.iter().take(RELEASE_LEN);
            let text = rest.take_while(|byte| byte.is_ascii_graphic());
            Some(text.map(|byte| char::from(*byte)).collect::<String>())
        };
        // The format string of the same text has no number.
        at.filter_map(release).find(|text| version_of(text).is_some())
    }

    /// Checks every file's digest.
    ///
    /// # Errors
    /// [`KernelError::Damaged`] names the first that differs.
    pub fn verify(&self) -> Result<(), KernelError> {
        for (path, _, digest) in self.files() {
            let bytes = std::fs::read(&path).map_err(KernelError::host("read", &path))?;
            let actual = Digest::of(&bytes).to_string();
            if actual != digest {
                let reason = format!("{} is {actual}, expected {digest}", path.display());
                return Err(KernelError::Damaged {
                    dir: self.dir.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, u64, &str)> {
        let modules = self.manifest.modules.iter();
        let modules = modules.map(|module| (self.module_path(module), module.size_bytes, &*module.digest));
        std::iter::once((self.path(), self.manifest.size_bytes, &*self.manifest.digest)).chain(modules)
    }
}

/// `5.10, 6.1` of many packages, which are in order.
fn series(packages: &[String]) -> String {
    let versions = packages
        .iter()
        .filter_map(|name| version_of(name.strip_prefix("linux-image-")?));
    let mut series: Vec<String> = versions
        .map(|(major, minor)| format!("{major}.{minor}"))
        .collect();
    series.dedup();
    match series.is_empty() {
        true => "none".to_owned(),
        false => series.join(", "),
    }
}

/// `(6, 1)` of `6.1.0-56-cloud-amd64`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether a text may be the name of a folder or file of ours: it comes out of a package.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte))
}
