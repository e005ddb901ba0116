//! A Firecracker of our own: taken out of a release archive or from a file, kept in the state folder.
//!
//! ```text
//! <state>/bin/firecracker, jailer   the programs
//! <state>/bin/firecracker.json      what they are: version, origin, digests; written last
//! ```
//!
//! The archive is a `.tar.gz` with `release-vVERSION-ARCH/NAME-vVERSION-ARCH` and more that is not wanted. Nothing of it is unpacked
//! but these two, by name, and each appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;

/// No program is longer; Firecracker's has 3 MB.
const PROGRAM_LEN: u64 = 64 << 20;
/// More files than any release has.
const ENTRIES: usize = 1000;
/// The programs, the one that must be there first.
const PROGRAMS: [&str; 2] = ["firecracker", "jailer"];

/// One program that was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Its name in `bin/`.
    pub name: String,
    /// SHA-256 of the file.
    pub digest: String,
}

/// The contents of `firecracker.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its version, `1.15.1`.
    pub version: String,
    /// The address or file that it was taken from.
    pub origin: String,
    /// SHA-256 of that.
    pub digest: String,
    /// Its programs.
    pub programs: Vec<Installed>,
}

/// Why a Firecracker cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The archive cannot be read.
    #[error("cannot read the release archive {}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{} holds no {wanted}", path.display())]
    NotInArchive {
        /// The archive.
        path: PathBuf,
        /// The file looked for.
        wanted: String,
    },
    /// A program that cannot run here.
    #[error("{} is no program for {arch}", path.display())]
    NoProgram {
        /// The file.
        path: PathBuf,
        /// What it should run on.
        arch: Arch,
    },
    /// A program that is longer than any.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The longest that is taken, in bytes.
        limit: u64,
    },
    /// What was set up is not as `firecracker.json` says.
    #[error("{} is not as it was set up", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder of the host's.
    #[error("cannot {action} {}", path.display())]
    Host {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn host(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReleaseError {
    let path = path.to_owned();
    move |source| ReleaseError::Host { action, path, source }
}

/// The folder for programs in a state folder, to be searched before `PATH`.
pub fn folder(state: &Path) -> PathBuf {
    state.join("bin")
}

impl Release {
    /// What has been set up in the state folder, every file as its digest says; `None` if nothing was.
    ///
    /// # Errors
    /// [`ReleaseError::Damaged`] names a file that is another or missing.
    pub fn installed(state: &Path) -> Result<Option<Release>, ReleaseError> {
        let folder = folder(state);
        let path = folder.join("firecracker.json");
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(host("read", &path)(error)),
        };
        let release: Release =
            serde_json::from_slice(&json).map_err(|_| ReleaseError::Damaged { path: path.clone() })?;
        for program in &release.programs {
            let path = folder.join(&program.name);
            let whole = PROGRAMS.contains(&&*program.name)
                && fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes).to_string() == program.digest);
            if !whole {
                return Err(ReleaseError::Damaged { path });
            }
        }
        Ok(Some(release))
    }

    /// Sets up the programs of the archive at `path`, which came from `origin` and has this digest.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn install_archive(
        state: &Path,
        path: &Path,
        version: &str,
        origin: &str,
        digest: &Digest,
    ) -> Result<Release, ReleaseError> {
        let programs = unpack(path, version)?;
        install(state, programs, version, origin, digest, path)
    }

    /// Sets up the one program in a file, whatever it is called.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn install_program(state: &Path, path: &Path, version: &str) -> Result<Release, ReleaseError> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(host("open", path))?;
        file.take(PROGRAM_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(host("read", path))?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > PROGRAM_LEN) {
            return Err(ReleaseError::TooLong {
                path: path.to_owned(),
                limit: PROGRAM_LEN,
            });
        }
        let digest = Digest::of(&bytes);
        let origin = path.display().to_string();
        install(state, vec![(PROGRAMS[0], bytes)], version, &origin, &digest, path)
    }
}

fn install(
    state: &Path,
    programs: Vec<(&'static str, Vec<u8>)>,
    version: &str,
    origin: &str,
    digest: &Digest,
    path: &Path,
) -> Result<Release, ReleaseError> {
    let folder = folder(state);
    fs::create_dir_all(&folder).map_err(host("create", &folder))?;
    for (_, bytes) in &programs {
        let machine = bytes.get(18..20).map(|bytes| [bytes[0], bytes[1]]);
        if !bytes.starts_with(b"\x7fELF") || machine != Some(Arch::HOST.elf_machine().to_le_bytes()) {
            return Err(ReleaseError::NoProgram {
                path: path.to_owned(),
                arch: Arch::HOST,
            });
        }
    }
    // A jailer must be of the same release: an older one goes.
    for name in PROGRAMS {
        if !programs.iter().any(|(there, _)| *there == name) {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(host("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    let mut installed = Vec::new();
    for (name, bytes) in &programs {
        replace(&folder, name, bytes, 0o755)?;
        installed.push(Installed {
            name: (*name).to_owned(),
            digest: Digest::of(bytes).to_string(),
        });
    }
    let release = Release {
        version: version.to_owned(),
        origin: origin.to_owned(),
        digest: digest.to_string(),
        programs: installed,
    };
    let json = serde_json::to_vec_pretty(&release).expect("a release has string keys only");
    replace(&folder, "firecracker.json", &json, 0o644)?;
    Ok(release)
}

/// Replaces a file in one step.
fn replace(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), ReleaseError> {
    let path = folder.join(name);
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(&format!(".{name}-"))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(host("replace", &path))
}

/// The programs in a release archive. An archive without a jailer is taken, one without Firecracker is not.
fn unpack(path: &Path, version: &str) -> Result<Vec<(&'static str, Vec<u8>)>, ReleaseError> {
    let broken = |source| ReleaseError::Archive {
        path: path.to_owned(),
        source,
    };
    let file_name = |program: &str| format!("{program}-v{version}-{}", Arch::HOST);
    let file = File::open(path).map_err(broken)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut found: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for entry in archive.entries().map_err(broken)?.take(ENTRIES) {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        let program = PROGRAMS.into_iter().find(|program| file_name(program) == name);
        if let Some(program) = program
            && entry.header().entry_type().is_file()
            && entry.size() <= PROGRAM_LEN
        {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            found.push((program, bytes));
        }
    }
    if !found.iter().any(|(name, _)| *name == PROGRAMS[0]) {
        return Err(ReleaseError::NotInArchive {
            path: path.to_owned(),
            wanted: file_name(PROGRAMS[0]),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(word: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend_from_slice(&Arch::HOST.elf_machine().to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
        bytes
    }

    fn archive(folder: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("release.tgz");
        let gzip = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(bytes.len()).unwrap());
            header.set_mode(0o755);
            let name = format!("release-v1.2.3-{0}/{name}-v1.2.3-{0}", Arch::HOST);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn both_programs_come_out_and_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let (fire, jailer) = (program("fire"), program("jail"));
        let path = archive(
            folder.path(),
            &[("seccompiler", b"x"), ("firecracker", &fire), ("jailer", &jailer)],
        );
        let digest = Digest::of(b"archive");
        let state = folder.path().join("state");
        assert_eq!(Release::installed(&state).unwrap(), None);
        let release = Release::install_archive(&state, &path, "1.2.3", "http://x", &digest).unwrap();
        assert_eq!(Release::installed(&state).unwrap(), Some(release));
        assert_eq!(fs::read(state.join("bin/jailer")).unwrap(), jailer);
        let mode = fs::metadata(state.join("bin/firecracker"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        let names = fs::read_dir(state.join("bin")).unwrap().count();
        assert_eq!(names, 3);

        // One program alone takes the place of both: a jailer of another version would not fit.
        let single = folder.path().join("mine");
        fs::write(&single, program("mine")).unwrap();
        let release = Release::install_program(&state, &single, "9").unwrap();
        assert_eq!(release.programs.len(), 1);
        assert!(!state.join("bin/jailer").exists());
        fs::write(state.join("bin/firecracker"), "changed").unwrap();
        assert!(matches!(
            Release::installed(&state),
            Err(ReleaseError::Damaged { .. })
        ));
    }

    #[test]
    fn what_is_no_release_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let digest = Digest::of(b"archive");
        let install = |path: &Path| Release::install_archive(&state, path, "1.2.3", "http://x", &digest);
        let path = archive(folder.path(), &[("jailer", &program("x"))]);
        assert!(matches!(install(&path), Err(ReleaseError::NotInArchive { .. })));
        let path = archive(folder.path(), &[("firecracker", b"#!/bin/sh")]);
        assert!(matches!(install(&path), Err(ReleaseError::NoProgram { .. })));
        let whole = fs::read(archive(folder.path(), &[("firecracker", &program("y"))])).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(
            install(&path),
            Err(ReleaseError::Archive { .. } | ReleaseError::NotInArchive { .. })
        ));
        // Half of a program is none, either.
        let path = folder.path().join("firecracker");
        fs::write(&path, program("z")).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(PROGRAM_LEN + 1)
            .unwrap();
        let error = Release::install_program(&state, &path, "1").unwrap_err();
        assert!(error.to_string().contains("more than 67108864 bytes"), "{error}");
        assert_eq!(Release::installed(&state).unwrap(), None);
    }
}
