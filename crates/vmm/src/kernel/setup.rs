//! Gets a kernel ready: fetch, take apart, choose modules, put in place.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use firebrick_digest::{Digest, Hasher};

use super::apt::{Fetched, Listener};
use super::install::{Lock, write_file, write_module};
use super::kernel_file::KernelFile;
use super::package::Package;
use super::{
    Config, Kernel, KernelError, MANIFEST_VERSION, Manifest, Module, Origin, apt, is_plain_name, modules,
};
use crate::arch::Arch;

/// No kernel file of the caller's is larger.
const KERNEL_LIMIT_BYTES: u64 = 512 << 20;

/// Where to take the kernel from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Debian's cloud kernel, by way of apt.
    Apt {
        /// The beginning of the release (`6.1`); `None` takes the distribution's current one.
        version: Option<String>,
        /// What it shall run on.
        arch: Arch,
    },
    /// A kernel package in a file.
    Package(PathBuf),
    /// A `vmlinux` or `bzImage` with everything built in.
    File(PathBuf),
}

/// What to set up, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupRequest {
    /// The state folder; the kernel goes to `kernels/` in it.
    pub state: PathBuf,
    /// Where to take it from.
    pub source: Source,
    /// Do it even if the very same is there already.
    pub force: bool,
}

/// What [`setup`] is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupEvent {
    /// Working in a folder of its own, which is removed at the end; by the next [`setup`] if the process is killed.
    Working {
        /// The folder.
        dir: PathBuf,
    },
    /// Fetching package lists of our own, because the system's have no such kernel to offer.
    UpdatingLists {
        /// Another release of the distribution whose lists they are.
        suite: Option<&'static str>,
    },
    /// Downloading a package.
    Downloading {
        /// Its name.
        package: String,
    },
    /// Reading the package's files.
    Reading {
        /// The package or kernel file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
    },
    /// The kernel has been taken out.
    Extracted {
        /// Its release.
        release: String,
        /// Length of the kernel file.
        size_bytes: u64,
    },
    /// The modules have been chosen.
    Modules {
        /// Names in load order.
        names: Vec<String>,
        /// What the kernel does not have.
        missing: Vec<String>,
    },
    /// The very same kernel is there already, whole.
    AlreadyThere {
        /// Its release.
        release: String,
    },
    /// Done.
    Ready {
        /// Its release.
        release: String,
        /// Its folder.
        dir: PathBuf,
    },
}

/// Gets a kernel ready and makes it the one that boots use.
///
/// Can be repeated and interrupted at any time: the folder appears whole, and what a killed run left is removed.
///
/// # Errors
/// [`KernelError`] says what could not be fetched, read or written.
pub fn setup(request: &SetupRequest, events: &dyn Fn(SetupEvent)) -> Result<Kernel, KernelError> {
    let lock = Lock::take(&request.state)?;
    let downloads = scratch(&lock, events)?;
    let ready = |kernel: Kernel| {
        let release = kernel.manifest().release.clone();
        lock.make_default(kernel.manifest().arch, &release)?;
        events(SetupEvent::Ready {
            release,
            dir: kernel.dir().to_owned(),
        });
        Ok(kernel)
    };
    let unneeded = |kernel: Kernel| {
        events(SetupEvent::AlreadyThere {
            release: kernel.manifest().release.clone(),
        });
        ready(kernel)
    };
    let path = match &request.source {
        Source::Apt { version, arch } => {
            let have = |digest: &str| {
                let origin = Origin::Package {
                    file: String::new(),
                    digest: format!("sha256:{digest}"),
                };
                already_there(&request.state, &origin).filter(|_| !request.force)
            };
            let listener = Listener {
                have: &have,
                on_update: &|suite| events(SetupEvent::UpdatingLists { suite }),
                on_download: &|package| {
                    events(SetupEvent::Downloading {
                        package: package.to_owned(),
                    });
                },
            };
            match apt::fetch(downloads.path(), *arch, version.as_deref(), &listener)? {
                Fetched::AlreadyThere(kernel) => return unneeded(kernel),
                Fetched::Package(path) => path,
            }
        }
        Source::Package(path) | Source::File(path) => path.clone(),
    };
    let digest = digest_of(&path)?.to_string();
    let origin = match &request.source {
        Source::File(path) => Origin::File {
            path: path.clone(),
            digest,
        },
        Source::Apt { .. } | Source::Package(_) => Origin::Package {
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            digest,
        },
    };
    match already_there(&request.state, &origin).filter(|_| !request.force) {
        Some(kernel) => unneeded(kernel),
        None => ready(install(&lock, &path, origin, events)?),
    }
}

/// A folder to work in, of which is told.
fn scratch(lock: &Lock, events: &dyn Fn(SetupEvent)) -> Result<tempfile::TempDir, KernelError> {
    let folder = lock.scratch()?;
    let dir = folder.path().to_owned();
    events(SetupEvent::Working { dir });
    Ok(folder)
}

/// The kernel made of the very same bytes, if it is there and intact.
fn already_there(state: &Path, origin: &Origin) -> Option<Kernel> {
    let entries = std::fs::read_dir(state.join("kernels")).ok()?;
    let kernels = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Kernel::open(&entry.path()).ok());
    let same = |kernel: &Kernel| match (&kernel.manifest().origin, origin) {
        (Origin::File { digest: a, .. }, Origin::File { digest: b, .. }) => a == b,
        (Origin::Package { digest: a, .. }, Origin::Package { digest: b, .. }) => a == b,
        _ => false,
    };
    // `default` and its like lead to one of the others; the real folder is wanted.
    kernels
        .filter(|kernel| !kernel.dir().is_symlink())
        .find(|kernel| same(kernel) && kernel.verify().is_ok())
}

fn install(
    lock: &Lock,
    path: &Path,
    origin: Origin,
    events: &dyn Fn(SetupEvent),
) -> Result<Kernel, KernelError> {
    let size_bytes = std::fs::metadata(path)
        .map_err(KernelError::host("read", path))?
        .len();
    events(SetupEvent::Reading {
        path: path.to_owned(),
        size_bytes,
    });
    let new = scratch(lock, events)?;
    let (bytes, package) = match &origin {
        Origin::Package { .. } => {
            let mut package = Package::read(path, new.path())?;
            (std::mem::take(&mut package.kernel), Some(package))
        }
        Origin::File { .. } => (read_kernel(path, size_bytes)?, None),
    };
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let packaged = package.as_ref().map(|package| package.release.as_str());
    let image = KernelFile::of(bytes, &name, packaged, &origin)?;
    let release = image.release.clone();
    let size_bytes = u64::try_from(image.bytes.len()).expect("a length fits 64 bits");
    events(SetupEvent::Extracted {
        release: release.clone(),
        size_bytes,
    });
    let digest = write_file(&new.path().join(image.format_name()), &image.bytes)?.to_string();
    let config = package.as_ref().and_then(|package| package.config.clone());
    if let Some(config) = config.or_else(|| Config::embedded(&image.bytes)) {
        write_file(&new.path().join("config"), config.as_bytes())?;
    }
    let modules = new.path().join("modules");
    std::fs::create_dir(&modules).map_err(KernelError::host("create", &modules))?;
    let (modules, missing) = match &package {
        Some(package) => choose_modules(package, &release, image.arch, new.path())?,
        None => (Vec::new(), Vec::new()),
    };
    let names = modules.iter().map(|module| module.name.clone()).collect();
    events(SetupEvent::Modules {
        names,
        missing: missing.clone(),
    });
    let file = image.format_name().to_owned();
    let format = image.format;
    let version = MANIFEST_VERSION;
    let manifest = Manifest {
        version,
        release,
        arch: image.arch,
        file,
        format,
        size_bytes,
        digest,
        origin,
        modules,
        missing,
    };
    set_mode(new.path())?;
    lock.publish(new.path(), &manifest)
}

/// A scratch folder is private; a kernel that root set up is for everybody.
fn set_mode(dir: &Path) -> Result<(), KernelError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).map_err(KernelError::host("set the mode of", dir))
}

fn choose_modules(
    package: &Package,
    release: &str,
    arch: Arch,
    dir: &Path,
) -> Result<(Vec<Module>, Vec<String>), KernelError> {
    let keyboard = match arch {
        Arch::X86_64 => modules::KEYBOARD,
        Arch::Aarch64 => &[],
    };
    let wanted = modules::REQUIRED
        .iter()
        .chain(modules::OPTIONAL)
        .chain(keyboard)
        .copied();
    let selection = modules::select(wanted, &package.modules, &package.built_in);
    let required = |name: &&String| modules::REQUIRED.contains(&name.as_str());
    let lacking: Vec<String> = selection.missing.iter().filter(required).cloned().collect();
    if !lacking.is_empty() {
        return Err(KernelError::Lacks {
            release: release.to_owned(),
            missing: lacking,
        });
    }
    let mut written = Vec::new();
    for name in &selection.order {
        if !is_plain_name(name) {
            return Err(KernelError::NoKernel {
                path: dir.to_owned(),
                reason: format!("a module is called {name:?}"),
            });
        }
        written.push(write_module(dir, name, &package.module(name)?)?);
    }
    Ok((written, selection.missing))
}

fn read_kernel(path: &Path, size_bytes: u64) -> Result<Vec<u8>, KernelError> {
    if size_bytes > KERNEL_LIMIT_BYTES {
        return Err(KernelError::Format {
            name: path.display().to_string(),
        });
    }
    std::fs::read(path).map_err(KernelError::host("read", path))
}

fn digest_of(path: &Path) -> Result<Digest, KernelError> {
    let read = || -> io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                len => hasher.update(&buffer[..len]),
            }
        }
    };
    read().map_err(KernelError::host("read", path))
}
