//! Image files by name or path.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;

use crate::error::CliError;
use crate::home::Home;

/// The formats of images, which end their files' names.
pub(crate) const FORMATS: [&str; 2] = ["ext4", "squashfs"];

/// A name fit for `rootfs-{name}.ext4`.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(good)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if fits {
        return Ok(text.to_owned());
    }
    Err("a name has up to 64 letters, digits, dots, dashes, underscores and pluses, and begins with a letter or digit"
        .to_owned())
}

/// A name for a new image. What looks like its file's name is refused: it would become `rootfs-x.ext4.ext4`.
pub(crate) fn parse_new_name(text: &str) -> Result<String, String> {
    let name = parse_name(text)?;
    let bare = without_file_parts(&name);
    if bare == name {
        return Ok(name);
    }
    let advice = match parse_name(bare) {
        Ok(bare) => format!("give -n {bare}, or -o {name} for a file of that name"),
        Err(_) => format!("give -o {name} for a file of that name"),
    };
    Err(format!("it would become the file rootfs-{name}.ext4; {advice}"))
}

/// The name in what may be a file's name.
fn without_file_parts(name: &str) -> &str {
    let name = name.strip_prefix("rootfs-").unwrap_or(name);
    without_format(name).unwrap_or(name)
}

fn without_format(name: &str) -> Option<&str> {
    FORMATS
        .iter()
        .find_map(|format| name.strip_suffix(format)?.strip_suffix('.'))
}

/// An image in the images folder.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// All images, by name.
pub(crate) fn list(home: &Home) -> anyhow::Result<Vec<Listed>> {
    let folder = home.images();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read folder {folder:?}")),
    };
    let mut images = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read folder {folder:?}"))?;
        let Some(name) = listed_name(&entry.file_name()) else {
            continue;
        };
        // Follows symlinks: an image may be kept on another disk. Gone since the listing is not an error.
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if metadata.is_file() {
            images.push(Listed {
                name,
                path: entry.path(),
                size_bytes: metadata.len(),
                allocated_bytes: metadata.blocks() * 512,
                modified: metadata.modified().ok(),
            });
        }
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// A download to the images folder that was ended. The same command goes on with what came; nobody works on it now.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Bytes that it takes on disk.
    pub(crate) size_bytes: u64,
    pub(crate) modified: SystemTime,
}

/// Downloads that were ended, by name.
pub(crate) fn unfinished(home: &Home) -> Vec<Unfinished> {
    let mut found: Vec<Unfinished> = fs::read_dir(home.images())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| unfinished_at(entry.path()))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn unfinished_at(path: PathBuf) -> Option<Unfinished> {
    let (image, _) = path
        .file_name()?
        .to_str()?
        .strip_prefix('.')?
        .split_once(".download-")?;
    let name = listed_name(image.as_ref())?;
    let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    // Who downloads holds it locked.
    fs::File::open(&path).ok()?.try_lock().ok()?;
    Some(Unfinished {
        name,
        size_bytes: metadata.blocks() * 512,
        modified: metadata.modified().ok()?,
        path,
    })
}

/// What an IMAGE argument would be called: the name in `rootfs-NAME.ext4`, or else the argument as it is.
pub(crate) fn name_of(image: &Path) -> String {
    let file_name = image.file_name().unwrap_or(image.as_os_str());
    listed_name(file_name).unwrap_or_else(|| file_name.to_string_lossy().into_owned())
}

fn listed_name(file_name: &OsStr) -> Option<String> {
    let name = file_name.to_str()?.strip_prefix("rootfs-")?;
    parse_name(without_format(name)?).ok()
}

/// The file that an IMAGE argument means: a path if it has a slash, else a name, else a file of this folder.
pub(crate) fn find(home: &Home, image: &OsStr) -> anyhow::Result<PathBuf> {
    let as_path = Path::new(image);
    if image.as_encoded_bytes().contains(&b'/') {
        return match as_path.is_file() {
            true => Ok(as_path.to_owned()),
            false => Err(no_such_file(as_path).into()),
        };
    }
    let name = image.to_string_lossy().into_owned();
    if parse_name(&name).is_ok()
        && let Some(named) = files_of(home, &name).into_iter().next()
    {
        return Ok(named);
    }
    if as_path.is_file() {
        return Ok(as_path.to_owned());
    }
    Err(no_such_image(home, name))
}

/// What is wrong with a path where no file is.
fn no_such_file(path: &Path) -> CliError {
    let path = path.to_owned();
    match fs::metadata(&path) {
        Ok(there) => CliError::NoImageFile {
            is_folder: there.is_dir(),
            path,
        },
        Err(_) => CliError::NoSuchFile { path },
    }
}

/// The files of a name, of which there must be one. Only who put them there himself has several.
pub(crate) fn find_named(home: &Home, name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let paths = files_of(home, name);
    if paths.is_empty() {
        return Err(no_such_image(home, name.to_owned()));
    }
    Ok(paths)
}

/// The files of a name, in any format.
pub(crate) fn files_of(home: &Home, name: &str) -> Vec<PathBuf> {
    let paths = FORMATS.iter().map(|format| home.image(name, format));
    paths.filter(|path| path.is_file()).collect()
}

fn no_such_image(home: &Home, name: String) -> anyhow::Error {
    let known = list(home)
        .unwrap_or_default()
        .into_iter()
        .map(|image| image.name)
        .collect();
    CliError::NoSuchImage {
        to_make: without_file_parts(&name).to_owned(),
        name,
        folder: home.images(),
        known,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for good in ["python", "python3.12", "c++", "a_b-c", "7zip"] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        for (bad, instead) in [
            ("x.ext4", "give -n x, or -o x.ext4"),
            ("rootfs-x", "give -n x, or -o rootfs-x"),
            ("rootfs-x.ext4", "give -n x,"),
            ("x.squashfs", "give -n x, or -o x.squashfs"),
            ("rootfs-", "rootfs-rootfs-.ext4; give -o rootfs- "),
        ] {
            let error = parse_new_name(bad).unwrap_err();
            assert!(error.contains(instead), "{error}");
        }
        assert!(parse_new_name("ext4").is_ok());
        let long = "x".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-x",
            "ü",
            "a b",
            "a\n",
            long.as_str(),
        ] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
