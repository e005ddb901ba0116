//! Makes images with e2fsprogs. Each passes `e2fsck -fn` before a test sees it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use firebrick_ext4::read::{Filesystem, Inode, LastSymlink};
use tempfile::TempDir;

/// An image in a folder that goes when it goes.
pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    /// Makes a filesystem of `size` (`8M`) with the content of `source`.
    pub(crate) fn make(arguments: &str, size: &str, source: Option<&Path>) -> Image {
        let image = Image {
            folder: tempfile::tempdir().unwrap(),
        };
        let mut mke2fs = tool("mke2fs");
        mke2fs.args(["-q", "-F"]).args(arguments.split_whitespace());
        if let Some(source) = source {
            mke2fs.arg("-d").arg(source);
        }
        run(mke2fs.arg(image.path()).arg(size));
        image.check();
        image
    }

    /// No filesystem yet: a folder for one.
    pub(crate) fn empty() -> Image {
        Image {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    pub(crate) fn open(&self) -> Filesystem<std::fs::File> {
        Filesystem::open(std::fs::File::open(self.path()).unwrap()).unwrap()
    }

    /// `e2fsck` must find nothing to say against it.
    pub(crate) fn check(&self) {
        run(tool("e2fsck").arg("-fn").arg(self.path()));
    }

    /// Rebuilds every directory, large ones with a hash tree.
    pub(crate) fn index_directories(&self) {
        let output = tool("e2fsck").arg("-fyD").arg(self.path()).output().unwrap();
        assert!(output.status.code() <= Some(1), "{output:?}");
        self.check();
    }

    /// Runs commands that write, and fails where one complains.
    pub(crate) fn alter(&self, commands: &[&str]) {
        let file = self.folder.path().join("commands");
        std::fs::write(&file, commands.join("\n") + "\n").unwrap();
        let output = run(tool("debugfs").arg("-w").arg("-f").arg(&file).arg(self.path()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.lines().count(), 1, "more than the version: {said}");
    }

    /// Runs a command that damages, whatever it says to that.
    pub(crate) fn damage(&self, command: &str) {
        run(tool("debugfs").arg("-w").arg("-R").arg(command).arg(self.path()));
    }

    /// What a command that reads prints.
    pub(crate) fn ask(&self, command: &str) -> String {
        let output = run(tool("debugfs").arg("-R").arg(command).arg(self.path()));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file beside the image.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A command of e2fsprogs, which lies where only root looks by default.
pub(crate) fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} (install e2fsprogs): {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// What stands at a path, the link itself where it is one.
pub(crate) fn at<R: firebrick_ext4::read::ReadAt>(filesystem: &Filesystem<R>, path: &str) -> Inode {
    filesystem
        .lookup(path.as_bytes(), LastSymlink::Keep)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}
