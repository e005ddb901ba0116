//! The initramfs of a printed document: a file that stays, because the document may be used at any later time.
//!
//! Its content is a function of the kernel and of the guest binary, so a document that is printed again finds the file of the first
//! one. A file is trusted for what is in it, not for its name. Those of kernels and guests of old are removed: the newest few stay.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use firebrick_digest::Digest;

/// How the files' names begin. Nothing else in their folder is touched.
const PREFIX: &str = "initramfs-";
/// The name of one that is not whole yet.
const UNFINISHED: &str = ".initramfs-new";
/// How many files stay: the newest, by when they were last asked for.
const KEPT: usize = 4;

/// Keeps `bytes` in a file of `folder`, which is made.
pub(super) fn keep(folder: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Held to the end: nobody removes what another one has just found or is writing.
    let gate = File::open(folder)?;
    gate.lock()?;
    let digest = Digest::of(bytes).to_string();
    let hex = digest.rsplit(':').next().unwrap_or(&digest);
    let path = folder.join(format!("{PREFIX}{hex}"));
    if !holds(&path, bytes) {
        write(folder, &path, bytes)?;
    }
    // Where that is not ours to say, the file counts as older than it is.
    let _ = File::open(&path)?.set_modified(SystemTime::now());
    sweep(folder, &path);
    Ok(path)
}

/// Whether a file is there and has exactly this content.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let wanted = u64::try_from(bytes.len()).ok();
    let is_file = fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && Some(file.len()) == wanted);
    let read = || {
        let mut found = Vec::with_capacity(bytes.len());
        File::open(path)?.read_to_end(&mut found)?;
        io::Result::Ok(found)
    };
    is_file && read().is_ok_and(|found| found == bytes)
}

/// Under its name whole or not at all; what else has that name is replaced.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = folder.join(UNFINISHED);
    // A killed writer's.
    let _ = fs::remove_file(&part);
    let filled = File::create_new(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = filled.and_then(|()| fs::rename(&part, path));
    if placed.is_err() {
        // On a full disk it would keep the room that there is.
        let _ = fs::remove_file(&part);
    }
    placed
}

/// Removes all but the newest files. What cannot be removed is in nobody's way.
fn sweep(folder: &Path, asked_for: &Path) {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Ok(file) = entry.metadata() else { continue };
        if name.to_string_lossy().starts_with(PREFIX) && file.is_file() && entry.path() != asked_for {
            kept.push((file.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
    kept.sort();
    let too_many = (kept.len() + 1).saturating_sub(KEPT);
    for (_, path) in kept.into_iter().take(too_many) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_of_the_right_name_and_length_is_not_trusted_unread() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let path = keep(&folder, b"an initramfs").unwrap();
        fs::write(&path, b"AN INITRAMFS").unwrap();
        assert_eq!(keep(&folder, b"an initramfs").unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"an initramfs");
        // Nor is a link followed to who knows where.
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("precious"), b"mine").unwrap();
        std::os::unix::fs::symlink(dir.path().join("precious"), &path).unwrap();
        keep(&folder, b"an initramfs").unwrap();
        assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"mine");
        assert_eq!(fs::read(&path).unwrap(), b"an initramfs");
        assert_eq!(names(&folder).len(), 1);
    }

    #[test]
    fn what_could_not_be_kept_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = keep(dir.path(), b"an initramfs").unwrap();
        // Nothing can take the place of a folder with something in it.
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("x")).unwrap();
        assert!(keep(dir.path(), b"an initramfs").is_err());
        assert_eq!(names(dir.path()), [path.file_name().unwrap().to_str().unwrap()]);
    }

    #[test]
    fn what_is_right_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let path = keep(dir.path(), b"an initramfs").unwrap();
        let first = inode(&path);
        assert_eq!(inode(&keep(dir.path(), b"an initramfs").unwrap()), first);
    }

    #[test]
    fn the_newest_stay_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("alpine.vsock"), b"").unwrap();
        fs::create_dir(dir.path().join("vm-1")).unwrap();
        fs::write(dir.path().join(UNFINISHED), b"half").unwrap();
        let mut paths = Vec::new();
        for n in 0..10_u8 {
            let path = keep(dir.path(), &[n; 100]).unwrap();
            // As if the others had been asked for earlier.
            let age = Duration::from_secs(1000 - u64::from(n));
            let file = File::open(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            paths.push(path);
            if n == 6 {
                // This one still serves.
                assert_eq!(keep(dir.path(), &[4; 100]).unwrap(), paths[4]);
            }
        }
        let there: Vec<usize> = (0..10).filter(|n| paths[*n].exists()).collect();
        assert_eq!(there, [4, 7, 8, 9]);
        assert_eq!(names(dir.path()).len(), KEPT + 2);
    }

    #[test]
    fn many_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 300_000];
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| keep(dir.path(), &bytes).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(paths.iter().all(|path| *path == paths[0]));
        assert_eq!(fs::read(&paths[0]).unwrap(), bytes);
        assert_eq!(names(dir.path()).len(), 1);
    }
}
