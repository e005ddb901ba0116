//! Package sets as the distributions' own tools install them: Alpine from the fixtures, an archive in Ubuntu's shape that is made
//! and signed here, and Debian itself. Whole systems of the second are made and judged in the tests of the command.

mod alpine;
mod debian;
mod ubuntu;

use std::sync::{Arc, Mutex};

use firebrick_bootstrap::{BootstrapError, Cause, Event, Options, PackageSet, prepare};
use firebrick_digest::Digest;

/// Where a test works: a folder that every user may reach, and that is empty again after each installation.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        Place(folder)
    }

    fn options(&self) -> Options {
        Options {
            temp_dir: self.0.path().to_owned(),
            ..Options::default()
        }
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(self.0.path()).unwrap().next().is_none()
    }

    /// Installs the set: the tar.
    fn install(&self, set: &PackageSet) -> Result<Vec<u8>, BootstrapError> {
        self.install_telling(set).0
    }

    /// The tar, and what was said meanwhile.
    fn install_telling(&self, set: &PackageSet) -> (Result<Vec<u8>, BootstrapError>, Vec<Event>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&said);
        let options = Options {
            events: Arc::new(move |event| hears.lock().unwrap().push(event)),
            ..self.options()
        };
        let tar = install(set, &options);
        assert!(self.is_empty(), "nothing is left behind");
        let said = std::mem::take(&mut *said.lock().unwrap());
        (tar, said)
    }
}

fn install(set: &PackageSet, options: &Options) -> Result<Vec<u8>, BootstrapError> {
    let prepared = prepare(set, options)?;
    let mut tar = Vec::new();
    let read = match prepared.image().layers[0].open() {
        Ok(mut layer) => std::io::Read::read_to_end(&mut layer, &mut tar).map(|_| ()),
        Err(error) => Err(std::io::Error::other(error)),
    };
    match (read, prepared.take_failure()) {
        (Ok(()), None) => Ok(tar),
        (Err(_), Some(failure)) => Err(failure),
        other => panic!("a failure is told both ways or not at all: {other:?}"),
    }
}

/// The names in a tar, and each one's owner, by GNU tar.
fn list(tar: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    let output = std::process::Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn digest(tar: &[u8]) -> Digest {
    Digest::of(tar)
}

/// The cause and the words of a tool's failure.
fn failure(result: Result<Vec<u8>, BootstrapError>) -> (Cause, String) {
    match result {
        Err(error @ BootstrapError::Failed { cause, .. }) => (cause, error.to_string()),
        other => panic!("the tool did not fail: {:?}", other.map(|tar| tar.len())),
    }
}
