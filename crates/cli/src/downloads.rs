//! Single files that were downloaded for `setup` and for Alpine's base system, below the cache.
//!
//! ```text
//! setup/HEX               a kernel, initramfs or VMM as it came
//! minirootfs/HEX.tar.gz   a base system of Alpine
//! …/.HEX.part             one as far as it got, locked (flock) while someone works on it
//! ```

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use firebrick_digest::Digest;

use crate::home::Home;

/// Where `setup` keeps what it fetches.
pub(crate) fn of_setup(home: &Home) -> PathBuf {
    home.cache().join("setup")
}

/// Where Alpine's base systems are kept.
pub(crate) fn of_alpine(home: &Home) -> PathBuf {
    home.cache().join("minirootfs")
}

/// A file that was downloaded, or begun.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    /// Of the disk.
    pub(crate) size_bytes: u64,
    pub(crate) last_used: SystemTime,
    /// The rest has not come.
    pub(crate) is_part: bool,
    /// What asked for it.
    pub(crate) asked_by: &'static str,
}

/// All but those under way.
pub(crate) fn all(home: &Home) -> Vec<Download> {
    let folders = [
        (of_setup(home), "setup"),
        (of_alpine(home), "rootfs create -b alpine"),
    ];
    let mut found: Vec<Download> = folders
        .into_iter()
        .flat_map(|(folder, asked_by)| in_folder(&folder, asked_by))
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn in_folder(folder: &Path, asked_by: &'static str) -> Vec<Download> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| download_at(entry.path(), asked_by))
        .collect()
}

fn download_at(path: PathBuf, asked_by: &'static str) -> Option<Download> {
    let name = path.file_name()?.to_str()?;
    let part = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    let hex = part.unwrap_or_else(|| name.strip_suffix(".tar.gz").unwrap_or(name));
    let digest = format!("sha256:{hex}").parse().ok()?;
    let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let is_part = part.is_some();
    if is_part {
        // Who downloads holds it locked.
        File::open(&path).ok()?.try_lock().ok()?;
    }
    let modified = metadata.modified().ok()?;
    Some(Download {
        digest,
        size_bytes: metadata.blocks() * 512,
        last_used: metadata
            .accessed()
            .map_or(modified, |accessed| accessed.max(modified)),
        is_part,
        asked_by,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_and_what_is_not_ours_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let hex = "ab".repeat(32);
        let other = "cd".repeat(32);
        for name in [
            hex.clone(),
            format!(".{hex}.part"),
            format!(".{other}.part"),
            "notes".to_owned(),
        ] {
            fs::write(folder.path().join(name), "bytes").expect("a file");
        }
        let busy = File::open(folder.path().join(format!(".{other}.part"))).expect("it is there");
        busy.lock().expect("nobody else has it");
        let mut found = in_folder(folder.path(), "setup");
        found.sort_by_key(|download| download.is_part);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.digest.hex().to_string(), one.is_part))
            .collect();
        assert_eq!(told, [(hex.clone(), false), (hex, true)]);
    }
}
