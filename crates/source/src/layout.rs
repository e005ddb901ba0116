//! An OCI image layout on disk: `oci-layout`, `index.json` and `blobs/sha256/HEX`.
//!
//! Names inside may be symbolic links, as long as they stay inside.
//! Format: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Part, SourceError};
use crate::image::file_error;

/// An opened layout.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    root: OwnedFd,
}

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Layout, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| file_error("open", path, error.into()))?;
        Ok(Layout {
            path: path.to_owned(),
            root,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open_blob(&self, part: Part, digest: Digest) -> Result<File, SourceError> {
        self.open_file(part, &format!("blobs/sha256/{}", digest.hex()))
    }

    /// Opens a regular file below the layout, whatever links lead to it there.
    pub(crate) fn open_file(&self, part: Part, name: &str) -> Result<File, SourceError> {
        // Not blocking: a FIFO in a blob's place must not hang us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve) {
            // EXDEV: an absolute link, which may still lead inside. ENOSYS, EPERM: an old kernel or a strict sandbox.
            Err(Errno::XDEV | Errno::NOSYS | Errno::PERM) => self.open_resolved(name, flags)?,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(SourceError::Missing {
                    part,
                    name: name.to_owned(),
                    place: self.path.clone(),
                });
            }
            other => other.map_err(|error| file_error("open", &self.path.join(name), error.into()))?,
        };
        let file = File::from(opened);
        let metadata = file
            .metadata()
            .map_err(|source| file_error("examine", &self.path.join(name), source))?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(file_error("read", &self.path.join(name), source));
        }
        Ok(file)
    }

    fn open_resolved(&self, name: &str, flags: OFlags) -> Result<OwnedFd, SourceError> {
        let path = self.path.join(name);
        let resolve = |path: &Path| {
            path.canonicalize()
                .map_err(|source| file_error("resolve", path, source))
        };
        let (root, target) = (resolve(&self.path)?, resolve(&path)?);
        if !target.starts_with(&root) {
            return Err(SourceError::Outside {
                name: name.to_owned(),
                place: self.path.clone(),
            });
        }
        rustix::fs::open(&target, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| file_error("open", &target, error.into()))
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(crate) fn read_small(&self, part: Part, name: &str, limit: u64) -> Result<Vec<u8>, SourceError> {
        let file = self.open_file(part.clone(), name)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| file_error("read", &self.path.join(name), source))?;
        if bytes.len() as u64 > limit {
            return Err(SourceError::Limit {
                part,
                place: name.to_owned(),
                what: "its size in bytes (at least)",
                found: bytes.len() as u64,
                limit,
            });
        }
        Ok(bytes)
    }
}
