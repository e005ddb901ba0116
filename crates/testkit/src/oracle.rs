//! Judges that others wrote, and the policy for when they are not there.
//!
//! A missing judge fails the test that wants it: a suite that skips in silence proves nothing. On a developer's own
//! machine `FIREBRICK_SKIP_ORACLES=1` leaves such tests out, loudly; where `CI` is set, it does not.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};

use crate::layers::oci;
use crate::listing::{Listing, without_lost_and_found};
use crate::{layers::Layer, mount, view, walk};

/// A judge that this machine lacks.
#[derive(Debug, thiserror::Error)]
#[error("{what} is missing ({hint}); set FIREBRICK_SKIP_ORACLES=1 to leave such tests out (never in CI)")]
pub struct Missing {
    /// The tool or ability.
    pub what: String,
    /// How to get it.
    pub hint: String,
}

/// Whether the tests that need `tool` can run here.
///
/// `Ok(false)` only where the user opted out.
///
/// # Errors
/// [`Missing`] if it is not there and the user did not opt out.
pub fn have(tool: &str) -> anyhow::Result<bool> {
    if find(tool).is_some() {
        return Ok(true);
    }
    let package = match tool {
        "e2fsck" | "debugfs" | "dumpe2fs" | "resize2fs" => "apt-get install e2fsprogs",
        "unsquashfs" | "mksquashfs" => "apt-get install squashfs-tools",
        "mkfs.erofs" => "apt-get install erofs-utils",
        "linux.uml" => "apt-get install user-mode-linux",
        "getfacl" => "apt-get install acl",
        "bsdtar" => "apt-get install libarchive-tools",
        "weed" | "azurite-blob" | "aws" => "scripts/install-deps",
        "qemu-img" | "qemu-io" => "apt-get install qemu-utils",
        "nbdinfo" | "nbdcopy" => "apt-get install libnbd-bin",
        "getcap" => "apt-get install libcap2-bin",
        _ => "apt-get install the package of that name",
    };
    left_out(tool, package)
}

/// Whether the kernel's mount can judge here: root only. Anyone else is told so and the walk is left out, except in CI.
///
/// # Errors
/// [`Missing`] in CI.
pub fn have_mount() -> anyhow::Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(have("losetup")? && have("unshare")?);
    }
    if is_set("CI") {
        let missing = Missing {
            what: "root, for the kernel mount walk,".to_owned(),
            hint: "run as root".to_owned(),
        };
        return Err(missing.into());
    }
    leave_out("the kernel mount walk (only root may mount)");
    Ok(false)
}

fn left_out(what: &str, hint: &str) -> anyhow::Result<bool> {
    if is_set("CI") || !is_set("FIREBRICK_SKIP_ORACLES") {
        return Err(Missing {
            what: what.to_owned(),
            hint: hint.to_owned(),
        }
        .into());
    }
    leave_out(&format!("what needs {what} (FIREBRICK_SKIP_ORACLES)"));
    Ok(false)
}

/// Whether a variable says yes.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Says that the test does without something, and notes it, with the test's name, in the file `FIREBRICK_LEFT_OUT`: what tests say
/// is not shown where they pass, and `scripts/test` shows the file at its end.
pub fn leave_out(what: &str) {
    say(&format!("left out: {what}"));
    let Some(path) = std::env::var_os("FIREBRICK_LEFT_OUT") else {
        return;
    };
    let noted = File::options().append(true).create(true).open(path);
    // In one piece: many tests write at once. One that runs as another user may not.
    let line = format!("{what}\t{}\n", test_name());
    let _ = noted.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// The running test, as `PROGRAM::PATH::TEST`.
fn test_name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // Cargo puts a digest behind the name.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = std::thread::current();
    let asked = std::env::args().skip_while(|word| word != "--exact").nth(1);
    let name = match thread.name() {
        Some(name) if name != "main" => Some(name.to_owned()),
        // With one thread tests run in the first.
        _ => asked,
    };
    name.map_or(program.to_owned(), |name| format!("{program}::{name}"))
}

/// Tells whoever runs the tests.
#[expect(clippy::print_stderr, reason = "tests talk to the person who runs them")]
pub fn say(message: &str) {
    eprintln!("testkit: {message}");
}

/// Where `tool` is: in `PATH`, or where Debian keeps what it thinks only root wants.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Runs a tool to its end, whatever its status.
///
/// # Errors
/// If it cannot be started.
pub fn run<A: AsRef<OsStr>>(tool: &str, args: impl IntoIterator<Item = A>) -> anyhow::Result<Output> {
    let program = find(tool).with_context(|| format!("{tool} is not installed"))?;
    Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("running {tool}"))
}

/// Runs a tool that must succeed, and yields its standard output.
///
/// # Errors
/// If it cannot be started or fails; with all that it said.
pub fn run_ok<A: AsRef<OsStr>>(tool: &str, args: impl IntoIterator<Item = A>) -> anyhow::Result<String> {
    let output = run(tool, args)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{tool}: {}\n{stdout}{stderr}",
        output.status
    );
    Ok(stdout)
}

/// An image that `e2fsck` found clean when this value was made.
#[derive(Debug, Clone)]
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// Checks the image at `path`.
    ///
    /// # Errors
    /// If `e2fsck -fn` has anything to say against it.
    pub fn check(path: &Path) -> anyhow::Result<Image> {
        let image = Image {
            path: path.to_owned(),
        };
        image.fsck()?;
        Ok(image)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks it again, for tests that changed it.
    ///
    /// # Errors
    /// If `e2fsck -fn` has anything to say against it.
    pub fn fsck(&self) -> anyhow::Result<()> {
        if !have("e2fsck")? {
            return Ok(());
        }
        let output = run("e2fsck", [OsStr::new("-fn"), self.path.as_os_str()])?;
        let text = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat();
        ensure!(
            output.status.success(),
            "e2fsck -fn {}: {}\n{text}",
            self.path.display(),
            output.status
        );
        // Status 0 with a remark in it would be a remark nobody reads.
        for line in text.lines() {
            let known = line.starts_with("Timestamp(s) on inode") // e2fsck guesses; times after 2310 are right here
                || line == "Fix? no"
                || line.starts_with("e2fsck ") || line.starts_with("Pass ") || line.contains(" files (");
            ensure!(
                known || line.is_empty(),
                "e2fsck -fn {} remarks:\n{text}",
                self.path.display()
            );
        }
        Ok(())
    }

    /// The kernel's view, through a read-only loop mount; `None` where that cannot be had (see [`have_mount`]).
    ///
    /// # Errors
    /// If the kernel refuses the image, anything in it cannot be read, or a path has several times.
    pub fn mounted_listing(&self) -> anyhow::Result<Option<Listing>> {
        if !have_mount()? {
            return Ok(None);
        }
        let mounted = mount::Mount::new(&self.path, "ro")?;
        let listing = walk::walk(mounted.path())?;
        walk::same_times(mounted.path(), &listing)?;
        mounted.unmount()?;
        Ok(Some(without_lost_and_found(listing)))
    }

    /// The view of the `ext4-view` crate.
    ///
    /// # Errors
    /// If it refuses the image, or anything in it cannot be read.
    pub fn viewed_listing(&self) -> anyhow::Result<Listing> {
        Ok(without_lost_and_found(view::view(&self.path)?))
    }

    /// `dumpe2fs`: the superblock and every group, as text.
    ///
    /// # Errors
    /// If it fails.
    pub fn dumpe2fs(&self) -> anyhow::Result<String> {
        run_ok("dumpe2fs", [self.path.as_os_str()])
    }

    /// The value of a line `NAME: VALUE` of `dumpe2fs`, which looks at no more than the superblock for this.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn superblock_field(&self, name: &str) -> anyhow::Result<String> {
        let text = run_ok("dumpe2fs", [OsStr::new("-h"), self.path.as_os_str()])?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line
            .with_context(|| format!("dumpe2fs shows no {name:?}"))?
            .trim()
            .to_owned())
    }

    /// What `debugfs` says to one command.
    ///
    /// # Errors
    /// If it fails.
    pub fn debugfs(&self, command: &str) -> anyhow::Result<String> {
        run_ok(
            "debugfs",
            [OsStr::new("-R"), OsStr::new(command), self.path.as_os_str()],
        )
    }

    /// Changes the image by one command of `debugfs`.
    ///
    /// # Errors
    /// If it says anything: on failure it still ends with success.
    pub fn change(&self, command: &str) -> anyhow::Result<()> {
        let args = [OsStr::new("-w"), OsStr::new("-R"), OsStr::new(command)];
        let output = run("debugfs", args.into_iter().chain([self.path.as_os_str()]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.lines().count() == 1,
            "debugfs {command}: {said}"
        );
        Ok(())
    }

    /// Grows the image offline to `size` (as `resize2fs` writes sizes: `64M`), and checks it.
    ///
    /// # Errors
    /// If `resize2fs` fails or the result is not clean.
    pub fn resize(&self, size: &str) -> anyhow::Result<()> {
        run_ok("resize2fs", [self.path.as_os_str(), OsStr::new(size)])?;
        self.fsck()
    }
}

/// What `umoci unpack` makes of the layers: the judge of [`crate::reference`]. Root only, else `None`.
///
/// # Errors
/// If umoci refuses the layers.
pub fn umoci(layers: &[Layer]) -> anyhow::Result<Option<Listing>> {
    if !rustix::process::geteuid().is_root() {
        leave_out("umoci (only root may give files to others)");
        return Ok(None);
    }
    if !have("umoci")? {
        return Ok(None);
    }
    let dir = tempfile::tempdir()?;
    let layout = dir.path().join("layout");
    oci::write_layout(&layout, layers, &oci::Options::default())?;
    let image = format!("{}:latest", layout.display());
    let bundle = dir.path().join("bundle");
    let args = ["unpack", "--image", &image].map(OsStr::new);
    let output = run("umoci", args.into_iter().chain([bundle.as_os_str()]))?;
    if !output.status.success() {
        bail!("umoci unpack: {}", String::from_utf8_lossy(&output.stderr));
    }
    walk::walk(&bundle.join("rootfs")).map(Some)
}
