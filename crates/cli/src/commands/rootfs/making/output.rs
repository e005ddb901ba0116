//! Where the image goes, checked before anything is pulled: a build that cannot be written down should not begin.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_build::behind_links;

use crate::error::CliError;
use crate::home::Home;
use crate::images;
use crate::trust;

/// The image's path; the folder of named images is made.
pub(crate) fn path(name: &str, output: Option<&Path>, format: &str, home: &Home) -> anyhow::Result<PathBuf> {
    match output {
        Some(path) => {
            check(path, name, format)?;
            Ok(path.to_owned())
        }
        None => {
            let folder = home.images();
            fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {folder:?}"))?;
            Ok(home.image(name, format))
        }
    }
}

/// One name is one image: once its file `image` is there, those of the same name in other formats are gone. With an `output` of its
/// own, an image has no name.
pub(crate) fn remove_other_formats(
    name: &str,
    output: Option<&Path>,
    home: &Home,
    image: &Path,
) -> anyhow::Result<()> {
    if output.is_some() {
        return Ok(());
    }
    for path in images::files_of(home, name) {
        if path != image {
            fs::remove_file(&path)
                .with_context(|| format!("cannot delete {path:?}, which the new image replaces"))?;
            trust::forget(home, &path)?;
        }
    }
    Ok(())
}

/// Whether a file of that path can be there.
fn check(path: &Path, name: &str, format: &str) -> Result<(), CliError> {
    let ends_in_slash = path.as_os_str().as_bytes().ends_with(b"/");
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path, // the root
    };
    let found = fs::metadata(path);
    if ends_in_slash || found.as_ref().is_ok_and(fs::Metadata::is_dir) {
        return Err(CliError::OutputIsFolder {
            path: path.to_owned(),
            inside: path.join(format!("rootfs-{name}.{format}")),
            exists: path.is_dir(),
        });
    }
    if found.is_ok_and(|found| !found.is_file()) || behind_links(path).is_err() {
        return Err(CliError::OutputIsNoFile {
            path: path.to_owned(),
        });
    }
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Err(CliError::OutputFolder {
            folder: folder.to_owned(),
            missing: false,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(CliError::OutputFolder {
            folder: folder.to_owned(),
            missing: true,
        }),
        _ => Ok(()), // whether it can be written shows when it is
    }
}
