//! Why a package set cannot be had.

use std::fmt;
use std::io;
use std::path::PathBuf;

use firebrick_layer::ScanError;
use firebrick_source::{Platform, SourceError};

use crate::set::Base;

/// Why a package set cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    // Choice.
    /// A word that a tool would misunderstand.
    #[error("{what} {word:?} is not usable: expected {expected}")]
    Word {
        /// What it was to be.
        what: &'static str,
        /// The word.
        word: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A mirror whose line turns signature checks off.
    #[error("mirror {mirror:?} would be trusted without signatures")]
    Trusting {
        /// The line.
        mirror: String,
    },
    /// `mmdebstrap` has no mirror for it.
    #[error("no mirror of {base} is known for {suite:?}")]
    NoMirror {
        /// The base.
        base: Base,
        /// The suite.
        suite: String,
    },
    /// Alpine keeps no past.
    #[error("alpine's mirrors keep no snapshots")]
    NoSnapshots,
    /// The base does not run there.
    #[error("{base} is not made for {platform}")]
    Platform {
        /// The base.
        base: Base,
        /// The platform.
        platform: Box<Platform>,
    },

    // Corrupt.
    /// The mirror's list of base systems names none that can be taken.
    #[error("{url} names no minirootfs for {architecture}")]
    NoMinirootfs {
        /// The list.
        url: String,
        /// The processor, as Alpine calls it.
        architecture: &'static str,
    },
    /// What is given for Alpine's base system is none.
    #[error("{path:?} is not an Alpine minirootfs: {problem}")]
    Minirootfs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// It cannot even be read as a tar.
    #[error("cannot read the minirootfs {path:?}")]
    MinirootfsTar {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ScanError,
    },

    // Host.
    /// A program that is needed is not there.
    #[error("{program} is not installed")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// Nobody has set user IDs aside for this user.
    #[error(
        "{user:?} may not use other user IDs, which a system's files belong to: {file:?} sets {found} aside, 65536 are needed"
    )]
    NoRange {
        /// The user's name.
        user: String,
        /// The file that says so.
        file: PathBuf,
        /// How many it sets aside.
        found: u64,
    },
    /// Root of a user namespace that has next to no users.
    #[error("this is root of a user namespace of {ids} user IDs: a system's files belong to 65536")]
    FewIds {
        /// How many there are.
        ids: u64,
    },
    /// Programs of that processor do not run here, and scripts of packages are such programs.
    #[error(
        "packages for {platform} have scripts that run while they are installed, which this host cannot: {problem}"
    )]
    Foreign {
        /// For whom they are.
        platform: Box<Platform>,
        /// What is missing.
        problem: NoHandler,
    },
    /// A file or folder of the host.
    #[error("cannot {doing} {path:?}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The base system cannot be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// Its address.
        url: String,
        /// Why not.
        source: Box<SourceError>,
    },
    /// A program cannot be started, or waited for.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A tool ended in failure.
    #[error("{program} could not {task} ({}){}", .status, indented(.words))]
    Failed {
        /// The tool.
        program: &'static str,
        /// What it was to do: `install debian bookworm`.
        task: String,
        /// How it ended.
        status: Ending,
        /// What its words come down to.
        cause: Cause,
        /// Its last words.
        words: Vec<String>,
    },
    /// It was told to stop, by whoever reads the layer or by a signal.
    #[error("{program} was stopped")]
    Stopped {
        /// The tool.
        program: &'static str,
    },
}

impl BootstrapError {
    /// What it means that a program of a package cannot be started.
    pub(crate) fn starting(
        program: &'static str,
        package: &'static str,
    ) -> impl Fn(io::Error) -> BootstrapError {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => BootstrapError::NotInstalled { program, package },
            _ => BootstrapError::Start {
                program: program.to_owned(),
                source,
            },
        }
    }
}

/// Why programs of another processor do not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoHandler {
    /// No handler is set for them.
    None,
    /// There is one, and its program is gone.
    Gone,
    /// Its program is looked for in the new root, where it is not.
    NotFixed,
}

impl fmt::Display for NoHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoHandler::None => "it has another processor, and binfmt_misc has no handler for them",
            NoHandler::Gone => "the program of binfmt_misc's handler for them is not there",
            NoHandler::NotFixed => {
                "binfmt_misc's handler for them works in this host's own root only (it lacks the flag F)"
            }
        })
    }
}

/// How a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending(pub(crate) std::process::ExitStatus);

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::process::ExitStatusExt as _;
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "status {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            _ => f.write_str("unknown status"),
        }
    }
}

fn indented(words: &[String]) -> String {
    match words {
        [] => String::new(),
        words => format!(":\n{}", words.join("\n")),
    }
}

/// What a tool's words come down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No such package, or not in that version.
    Package,
    /// Its key is not there, or the signature is another's or none.
    Signature,
    /// The signature's time is over: an old snapshot, or a clock that is wrong.
    Expired,
    /// The mirror is not reached, or has no such suite.
    Mirror,
    /// A disk is full.
    DiskFull,
    /// Programs of that processor do not run here.
    Processor,
    /// A namespace, mount or change of owner is refused.
    Namespace,
    /// Nothing that we know.
    Other,
}

/// Words of the tools, and what they come down to.
const SIGNS: [(Cause, &[&str]); 7] = [
    (
        Cause::DiskFull,
        &[
            "No space left on device",
            "Disk quota exceeded",
            "enough free space in",
        ],
    ),
    (
        Cause::Processor,
        &[
            "can neither be executed natively nor via qemu",
            "Exec format error",
        ],
    ),
    (
        Cause::Expired,
        &[
            "is not valid yet",
            "is expired",
            "EXPKEYSIG",
            "invalid for another",
        ],
    ),
    (
        Cause::Signature,
        &[
            "NO_PUBKEY",
            "BADSIG",
            "is not signed",
            "GPG error",
            "signatures couldn't be verified",
            "UNTRUSTED",
            "BAD signature",
            "Bad signature",
        ],
    ),
    (
        Cause::Mirror,
        &[
            "Failed to fetch",
            "does not have a Release file",
            "Could not resolve",
            "Could not connect",
            "Temporary failure resolving",
            "temporary error",
            "network error",
            "Connection refused",
            "DNS",
            "remote server returned error",
            "could not connect to server",
            "WARNING: fetching",
            "WARNING: opening",
            "WARNING: updating",
        ],
    ),
    (
        Cause::Package,
        &[
            "Unable to locate package",
            "has no installation candidate",
            "was not found",
            "unable to select packages",
            "unmet dependencies",
            "Couldn't find any package",
        ],
    ),
    (
        Cause::Namespace,
        &[
            "newuidmap",
            "newgidmap",
            "unshare failed",
            "unshare syscall failed",
            "cannot unshare",
            "unable to unshare",
        ],
    ),
];

impl Cause {
    /// Judges a tool's words. What is said of a cause deeper down counts more: a full disk also fails downloads.
    pub(crate) fn of(words: &[String]) -> Cause {
        let said = |sign: &&str| words.iter().any(|line| line.contains(*sign));
        SIGNS
            .into_iter()
            .find(|(_, signs)| signs.iter().any(said))
            .map_or(Cause::Other, |(cause, _)| cause)
    }
}
