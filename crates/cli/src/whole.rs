//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_build::Place;

/// A file on its way to its place. Dropped before it is there, it leaves nothing; what a process left that was killed goes with the
/// next one for the same place.
pub(crate) struct NewFile {
    place: Place,
    file: File,
    /// What it is called until it is whole, where it must have a name.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file for that path. Devices, pipes and folders are refused; a symbolic link stays one, and the file goes where it leads.
    pub(crate) fn create(path: &Path) -> io::Result<NewFile> {
        let place = Place::of(path)?;
        place.remove_stale();
        let (file, temporary) = match place.open_unnamed() {
            Some(file) => (file, None),
            None => {
                let (file, temporary) = place.open_named()?;
                (file, Some(temporary))
            }
        };
        Ok(NewFile {
            place,
            file,
            temporary,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Puts it where it is to be, in place of any file that is there.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => self.place.link(&self.file)?,
        };
        self.place.rename(&temporary)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary); // what is left of it is nobody's
        }
    }
}

/// Writes a file beside its place, and puts it there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = NewFile::create(path).and_then(|file| {
        file.file().write_all(bytes)?;
        file.finish()
    });
    written.with_context(|| format!("cannot write {path:?}"))
}
