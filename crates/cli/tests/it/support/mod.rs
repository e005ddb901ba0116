//! A firebrick command in an empty home, and where fixtures are.

pub(crate) mod folder;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod processes;
pub(crate) mod vm;

use std::path::Path;

use assert_cmd::Command;
use tempfile::TempDir;

/// A home folder that starts empty and goes away with this.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `firebrick` with nothing in its environment but a home and a PATH.
    pub(crate) fn firebrick(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("firebrick").expect("cargo built the binary");
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("FIREBRICK_HOME", self.path().join("fb"))
            .current_dir(self.path());
        command
    }

    /// Exit code, stdout and stderr as one text, with this home's path written as `~`.
    pub(crate) fn transcript(&self, args: &[&str]) -> String {
        let output = self.firebrick(args).output().expect("the binary starts");
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(self.path().to_str().expect("a plain path"), "~")
        };
        let code = output.status.code().expect("no signal ended it");
        format!(
            "{}{}exit code {code}\n",
            text(&output.stdout),
            text(&output.stderr)
        )
    }
}
