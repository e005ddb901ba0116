//! Files that appear whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

/// Writes a file beside its place, and puts it there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let writing = || format!("cannot write {path:?}");
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::IsADirectory)
        .map_err(io::Error::from)
        .with_context(writing)?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".partial-{}", std::process::id()));
    let part = path.with_file_name(part);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&part)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part); // what is left of it is nobody's
    }
    written.with_context(writing)
}
