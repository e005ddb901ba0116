//! Puts a kernel under its final name, whole or not at all, one writer at a time.
//!
//! Everything is written to `kernels/.new-*` first. Such folders of runs that were killed are removed by the next run
//! that holds `kernels/.lock`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::{Kernel, KernelError, Manifest, Module, default_link};
use crate::arch::Arch;

const NEW_PREFIX: &str = ".new-";

/// The right to change `<state>/kernels`; ends when dropped, or when the process ends.
pub(super) struct Lock {
    kernels: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits until no other process changes the folder, then removes what killed ones left.
    pub(super) fn take(state: &Path) -> Result<Lock, KernelError> {
        let kernels = state.join("kernels");
        std::fs::create_dir_all(&kernels).map_err(KernelError::host("create", &kernels))?;
        let path = kernels.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(KernelError::host("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| KernelError::host("lock", &path)(errno.into()))?;
        let lock = Lock { kernels, _file: file };
        lock.sweep()?;
        Ok(lock)
    }

    fn sweep(&self) -> Result<(), KernelError> {
        let entries = std::fs::read_dir(&self.kernels).map_err(KernelError::host("list", &self.kernels))?;
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
                std::fs::remove_dir_all(entry.path()).map_err(KernelError::host("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// A folder to work in, removed when dropped, on the same filesystem as the final place.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir, KernelError> {
        tempfile::Builder::new()
            .prefix(NEW_PREFIX)
            .tempdir_in(&self.kernels)
            .map_err(KernelError::host("create a folder in", &self.kernels))
    }

    /// Moves the folder `new`, which holds everything but `kernel.json`, to its final place.
    pub(super) fn publish(&self, new: &Path, manifest: &Manifest) -> Result<Kernel, KernelError> {
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
        write_file(&new.join("kernel.json"), &json)?;
        let target = self.kernels.join(&manifest.release);
        let rename = |flags| rustix::fs::renameat_with(CWD, new, CWD, &target, flags);
        match rename(RenameFlags::NOREPLACE) {
            // The old folder changes places with the new one, and goes away with the scratch folder.
            Err(rustix::io::Errno::EXIST) => rename(RenameFlags::EXCHANGE),
            outcome => outcome,
        }
        .map_err(|errno| KernelError::host("replace", &target)(errno.into()))?;
        self.sync()?;
        Kernel::open(&target)
    }

    /// Makes `release` the kernel that boots of guests for `arch` use.
    pub(super) fn make_default(&self, arch: Arch, release: &str) -> Result<(), KernelError> {
        let link = self.kernels.join(default_link(arch));
        let scratch = self.scratch()?;
        let new = scratch.path().join("default");
        std::os::unix::fs::symlink(release, &new).map_err(KernelError::host("create", &new))?;
        std::fs::rename(&new, &link).map_err(KernelError::host("replace", &link))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), KernelError> {
        let sync = File::open(&self.kernels).and_then(|dir| dir.sync_all());
        sync.map_err(KernelError::host("sync", &self.kernels))
    }
}

/// Writes a file and waits until it is on disk; gives its digest.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<Digest, KernelError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(KernelError::host("write", path))?;
    Ok(Digest::of(bytes))
}

/// Writes `modules/NAME.ko` within `dir`.
pub(super) fn write_module(dir: &Path, name: &str, bytes: &[u8]) -> Result<Module, KernelError> {
    let digest = write_file(&dir.join("modules").join(format!("{name}.ko")), bytes)?.to_string();
    let size_bytes = u64::try_from(bytes.len()).expect("a length fits 64 bits");
    Ok(Module {
        name: name.to_owned(),
        size_bytes,
        digest,
    })
}

/// Replaces the file `name` in `dir` in one step.
pub(crate) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), KernelError> {
    let path = dir.join(name);
    let replace = || {
        let mut file = tempfile::Builder::new()
            .prefix(&format!(".{name}-"))
            .tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file()
            .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    replace().map_err(KernelError::host("replace", &path))
}
