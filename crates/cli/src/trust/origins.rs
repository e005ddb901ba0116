//! `origins/`: for each image that was fetched a record of where from, by whose signatures, and which file it became.
//!
//! A record is found by the image's path alone, all symbolic links followed. It is written after the image got its name and removed after
//! the image went: whoever comes in between finds one that does not fit, and refuses.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_digest::Digest;
use firebrick_trust::{ORIGIN_MAX, Origin};

use crate::home::Home;
use crate::whole;

/// The records of this host.
pub(crate) struct Origins {
    folder: PathBuf,
}

impl Origins {
    pub(crate) fn of(home: &Home) -> Origins {
        Origins {
            folder: home.data().join("origins"),
        }
    }

    /// What is remembered of an image; `None` if it was made here.
    ///
    /// # Errors
    /// Also if there is something that cannot be read: an image is not one of this host because its record is damaged.
    pub(crate) fn of_image(&self, image: &Path) -> anyhow::Result<Option<Origin>> {
        let place = self.place(image)?;
        let reading = || format!("cannot tell where {image:?} came from: {place:?} is of no use");
        let file = match File::open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(reading)?,
        };
        let mut bytes = Vec::new();
        file.take(ORIGIN_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .with_context(reading)?;
        Origin::decode(&bytes).map(Some).with_context(reading)
    }

    /// Makes sure that records can be written, before there is something to record.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        let folder = &self.folder;
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {folder:?}"))
    }

    /// Remembers where the image at a path came from.
    pub(crate) fn record(&self, image: &Path, origin: &Origin) -> anyhow::Result<()> {
        self.prepare()?;
        whole::write(&self.place(image)?, &origin.encode())
    }

    /// Forgets what was fetched to a path, which may be gone.
    pub(crate) fn forget(&self, image: &Path) -> anyhow::Result<()> {
        let place = self.place(image)?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {place:?}, which is about {image:?}"))
            }
            _ => Ok(()),
        }
    }

    fn place(&self, image: &Path) -> anyhow::Result<PathBuf> {
        let real = real(image).with_context(|| format!("cannot tell where {image:?} lies"))?;
        let digest = Digest::of(real.as_os_str().as_bytes());
        Ok(self.folder.join(format!("{}.json", digest.hex())))
    }
}

/// An absolute path without links; also of a file that is gone.
fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let absolute = std::path::absolute(path)?;
    match (absolute.parent().map(fs::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => Ok(folder.join(name)),
        _ => Ok(absolute),
    }
}

#[cfg(test)]
mod tests {
    use firebrick_trust::{FileIdentity, Version};

    use super::*;

    #[test]
    fn a_path_has_one_record_by_whatever_way_it_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("images")).unwrap();
        fs::write(at("images/a"), "an image").unwrap();
        std::os::unix::fs::symlink(at("images"), at("link")).unwrap();
        std::os::unix::fs::symlink("images/a", at("short")).unwrap();
        let origins = Origins {
            folder: at("origins"),
        };
        let origin = Origin {
            store: "file:///x".to_owned(),
            version: Version::new("a", "latest", Digest::of(b"1")).unwrap(),
            signatures: Vec::new(),
            file: FileIdentity::of(&fs::metadata(at("images/a")).unwrap()),
        };
        origins.forget(&at("images/a")).unwrap();
        origins.record(&at("short"), &origin).unwrap();
        for way in ["images/a", "link/a", "link/../images/a", "short"] {
            assert_eq!(
                origins.of_image(&at(way)).unwrap().as_ref(),
                Some(&origin),
                "{way}"
            );
        }
        assert!(origins.of_image(&at("images/b")).unwrap().is_none());
        // The link goes, and not what it leads to.
        fs::remove_file(at("short")).unwrap();
        origins.forget(&at("short")).unwrap();
        assert!(origins.of_image(&at("images/a")).unwrap().is_some());
        fs::remove_file(at("images/a")).unwrap();
        origins.forget(&at("link/a")).unwrap();
        assert!(origins.of_image(&at("images/a")).unwrap().is_none());
    }

    #[test]
    fn damaged_records_are_no_absent_ones() {
        let dir = tempfile::tempdir().unwrap();
        let origins = Origins {
            folder: dir.path().to_owned(),
        };
        let image = dir.path().join("a");
        for damaged in ["", "{}", "null"] {
            fs::write(origins.place(&image).unwrap(), damaged).unwrap();
            assert!(origins.of_image(&image).is_err(), "{damaged:?}");
        }
    }
}
