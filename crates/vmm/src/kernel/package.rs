//! What a kernel package holds, found in one pass over its files.
//!
//! Modules come before or after what depends on them, in no order that helps, so every module's bytes are spooled to
//! one file without a name and chosen afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::decompress::{Compression, decompress};
use super::modules::{ModInfo, module_name};
use super::{KernelError, deb};

/// No kernel file in a package is larger.
const KERNEL_LIMIT_BYTES: u64 = 256 << 20;
/// No module is larger, decompressed; the largest of Debian's generic kernel has 12 MB.
const MODULE_LIMIT_BYTES: usize = 64 << 20;
/// All modules together, as stored; Debian's generic kernel has 400 MB.
const SPOOL_LIMIT_BYTES: u64 = 2 << 30;
/// No text file is larger.
const TEXT_LIMIT_BYTES: u64 = 4 << 20;
/// More files than any kernel package has.
const ENTRY_LIMIT: usize = 100_000;

/// What was found.
pub(super) struct Package {
    path: PathBuf,
    /// The bytes of `boot/vmlinuz-RELEASE`.
    pub(super) kernel: Vec<u8>,
    /// The RELEASE of that name.
    pub(super) release: String,
    /// The text of `boot/config-RELEASE`.
    pub(super) config: Option<String>,
    /// What each module says of itself.
    pub(super) modules: BTreeMap<String, ModInfo>,
    /// Names of what is built in.
    pub(super) built_in: BTreeSet<String>,
    spool: File,
    spooled: BTreeMap<String, (u64, usize)>,
}

impl Package {
    /// Reads the package at `path`; modules are spooled within `scratch`.
    pub(super) fn read(path: &Path, scratch: &Path) -> Result<Package, KernelError> {
        let file = File::open(path).map_err(KernelError::host("open", path))?;
        let stream = deb::data_tar(file).map_err(|source| KernelError::Package {
            path: path.to_owned(),
            source,
        })?;
        let spool = tempfile::tempfile_in(scratch).map_err(KernelError::host("spool in", scratch))?;
        let mut package = Package {
            path: path.to_owned(),
            kernel: Vec::new(),
            release: String::new(),
            config: None,
            modules: BTreeMap::new(),
            built_in: BTreeSet::new(),
            spool,
            spooled: BTreeMap::new(),
        };
        package.scan(stream, scratch)?;
        if package.kernel.is_empty() {
            return Err(package.unusable("it has no boot/vmlinuz-* file"));
        }
        Ok(package)
    }

    fn unusable(&self, reason: impl Into<String>) -> KernelError {
        KernelError::NoKernel {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn scan(&mut self, stream: impl Read, scratch: &Path) -> Result<(), KernelError> {
        let path = self.path.clone();
        let broken = |source| KernelError::PackageStream {
            path: path.clone(),
            source,
        };
        let mut archive = tar::Archive::new(stream);
        for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
            let mut entry = entry.map_err(broken)?;
            if index >= ENTRY_LIMIT {
                return Err(self.unusable(format!("it has more than {ENTRY_LIMIT} files")));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").trim_start_matches("usr/");
            let size_bytes = entry.size();
            let bounded = |limit: u64| {
                let reason = || format!("{name} has {size_bytes} bytes, more than {limit}");
                if size_bytes > limit {
                    Err(self.unusable(reason()))
                } else {
                    Ok(())
                }
            };
            let mut bytes = Vec::new();
            if let Some(release) = name.strip_prefix("boot/vmlinuz-") {
                bounded(KERNEL_LIMIT_BYTES)?;
                entry.read_to_end(&mut bytes).map_err(broken)?;
                self.kernel = bytes;
                release.clone_into(&mut self.release);
            } else if name.starts_with("boot/config-") || name.ends_with("/modules.builtin") {
                bounded(TEXT_LIMIT_BYTES)?;
                entry.read_to_end(&mut bytes).map_err(broken)?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if name.starts_with("boot/") {
                    self.config = Some(text);
                } else {
                    self.built_in = text.lines().map(module_name).collect();
                }
            } else if name.starts_with("lib/modules/") && is_module(name) {
                bounded(u64::try_from(MODULE_LIMIT_BYTES).unwrap_or(u64::MAX))?;
                entry.read_to_end(&mut bytes).map_err(broken)?;
                self.spool_module(name, &bytes, scratch)?;
            }
        }
        Ok(())
    }

    fn spool_module(&mut self, path: &str, stored: &[u8], scratch: &Path) -> Result<(), KernelError> {
        let name = module_name(path);
        let plain = self.plain(&name, stored)?;
        let Some(info) = ModInfo::parse(&plain) else {
            return Err(self.unusable(format!("{path} is no kernel module")));
        };
        let offset = self
            .spool
            .seek(SeekFrom::End(0))
            .map_err(KernelError::host("spool in", scratch))?;
        if offset > SPOOL_LIMIT_BYTES {
            return Err(self.unusable(format!("its modules have more than {SPOOL_LIMIT_BYTES} bytes")));
        }
        self.spool
            .write_all(stored)
            .map_err(KernelError::host("spool in", scratch))?;
        self.spooled.insert(name.clone(), (offset, stored.len()));
        self.modules.insert(name, info);
        Ok(())
    }

    fn plain<'a>(&self, name: &str, stored: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>, KernelError> {
        let Some(compression) = Compression::detect(stored) else {
            return Ok(stored.into());
        };
        let plain = decompress(compression, stored, MODULE_LIMIT_BYTES)
            .map_err(|error| self.unusable(format!("module {name}: {error}")))?;
        Ok(plain.into())
    }

    /// The bytes of a module, decompressed.
    pub(super) fn module(&self, name: &str) -> Result<Vec<u8>, KernelError> {
        let &(offset, len) = self
            .spooled
            .get(name)
            .expect("only names from `modules` are asked for");
        let mut stored = vec![0; len];
        self.spool
            .read_exact_at(&mut stored, offset)
            .map_err(KernelError::host("read spooled modules of", &self.path))?;
        Ok(self.plain(name, &stored)?.into_owned())
    }
}

fn is_module(name: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .any(|ending| name.ends_with(ending))
}
