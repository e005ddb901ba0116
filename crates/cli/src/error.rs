//! How failures look: `error:`, each `caused by:` once, then `hint:`s.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use firebrick_build::BuildError;
use firebrick_source::{Platform, Reference};
use firebrick_squashfs::Compression;
use firebrick_store::StoreError;
use firebrick_vmm::Arch;
use firebrick_vmm::client::CallError;

use crate::elf::machine_name;
use crate::language::Language;
use crate::text::{bytes, bytes_of};

/// What the commands find wrong themselves; the libraries have their own errors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// No image of that name.
    #[error("there is no image named {name:?} in {folder:?}")]
    NoSuchImage {
        name: String,
        to_make: String,
        folder: PathBuf,
        known: Vec<String>,
    },
    /// Nobody has said which store.
    #[error("no store is named")]
    NoStore { config: Option<PathBuf> },
    /// A store to read in a folder that is not there.
    #[error("there is no folder {path:?}, and so no store in it")]
    NoSuchStore { path: PathBuf },
    /// An image that went to a store without the signature that it was to have.
    #[error("{version} is in {address}, but without the signature: it cannot be signed")]
    Unsigned {
        version: String,
        address: String,
        /// Whose signature it was to be, and how to get into the store.
        flags: String,
        source: Box<StoreError>,
    },
    /// What is taken for an image is something else.
    #[error("it holds no filesystem that firebrick makes: neither ext4 nor squashfs")]
    NoFilesystem,
    /// No file at that path.
    #[error("there is no image file {path:?}")]
    NoSuchFile { path: PathBuf },
    /// Nothing at a path of an image.
    #[error("there is no {path:?} in {image:?}")]
    NoSuchPath {
        path: std::ffi::OsString,
        image: PathBuf,
    },
    /// A folder or a device at that path.
    #[error("{path:?} is {}, not an image file", if *is_folder { "a folder" } else { "a device, pipe or socket" })]
    NoImageFile { path: PathBuf, is_folder: bool },
    /// The guest that firebrick carries runs on one platform only.
    #[error("the image is for {image}, but firebrick's own guest is for {guest}")]
    OtherPlatform {
        image: Box<Platform>,
        guest: Box<Platform>,
    },
    /// Code in a language that firebrick does not know.
    #[error("{word:?} is no language that firebrick can run; there are: {}", Language::names().join(", "))]
    NoSuchLanguage { word: String },
    /// Code goes to the guest as arguments, which are limited.
    #[error("the code has {} or more, at most {} can be sent", bytes_of(*len), bytes_of(*limit))]
    CodeTooLong { len: usize, limit: usize },
    /// No Unix socket can have such a path.
    #[error("the path of the vsock socket has {len} bytes, at most {limit} are possible")]
    SocketPath { len: usize, limit: usize },
    /// No folder for the socket.
    #[error("cannot make the vsock socket in {folder:?}: there is no such folder")]
    SocketFolder { folder: PathBuf },
    /// A folder that cannot be read as a layer.
    #[error("cannot turn {reference} into an image")]
    Folder {
        reference: Reference,
        source: Box<BuildError>,
    },
    /// A flag that only the other format has.
    #[error("{flag} is not for {format} images")]
    NotOfFormat {
        flag: &'static str,
        format: &'static str,
    },
    /// A level that a compression does not have.
    #[error("{compression} has no compression level {level}{}", compression.levels().map(|levels| format!(": it has {} to {}", levels.start(), levels.end())).unwrap_or_default())]
    CompressionLevel { compression: Compression, level: u32 },
    /// A language that the base has no packages of.
    #[error("{base} has no packages for {lang}")]
    NotOnBase { lang: String, base: &'static str },
    /// Two flags that ask for opposites.
    #[error("this --init has the guest started, but --agent none leaves it out")]
    InitWithoutGuest,
    /// A folder where a file was to be.
    #[error("cannot write the image to {path:?}: {}", if *exists { "that is a folder" } else { "a path that ends in a slash is a folder" })]
    OutputIsFolder {
        path: PathBuf,
        inside: PathBuf,
        exists: bool,
    },
    /// A device or the like where a file was to be.
    #[error("cannot write the image to {path:?}: there is something that is not a file")]
    OutputIsNoFile { path: PathBuf },
    /// No folder for the file.
    #[error("cannot write the image into {folder:?}: {}", if *missing { "there is no such folder" } else { "that is not a folder" })]
    OutputFolder { folder: PathBuf, missing: bool },
    /// A VM cannot have more memory than its host.
    #[error("the VM shall have {} of memory, but this host has {}", bytes(*asked), bytes(*has))]
    MemoryOfHost { asked: u64, has: u64 },
    /// What a program writes is kept in the VM's memory.
    #[error("the program shall be able to write {}, but it is kept in memory, of which the VM has {}", bytes(*asked), bytes(*memory))]
    Overlay { asked: u64, memory: u64 },
    /// The machine could not start a single program of the image.
    #[error("the image {image:?} is for {}, but the VM's processor is {arch}: it cannot start {program}", machine_name(*machine))]
    OtherProcessor {
        image: PathBuf,
        program: String,
        machine: u16,
        arch: Arch,
    },
    /// An image that is not what it, or a flag, says.
    #[error("the image is said to be for {platform}, but its {program} is for {}", machine_name(*machine))]
    OtherPrograms {
        program: String,
        machine: u16,
        platform: Box<Platform>,
    },
    /// Nobody has said what the download must be.
    #[error("firebrick does not know what Firecracker {version} must be; it knows {known}")]
    NoPin { version: String, known: String },
    /// firebrick was built without the guest for that processor.
    #[error("this firebrick carries no guest for {arch}")]
    NoGuestFor { arch: Arch },
    /// Node.js would start, and fail in odd ways.
    #[error(
        "the image {image:?} has Node.js {node}, which needs Linux 5.10 or later, and the kernel is {kernel}"
    )]
    NodeNeedsKernel {
        image: PathBuf,
        node: String,
        kernel: String,
    },
    /// Nothing is given to run, and the image names nothing.
    #[error("the image {image:?} has neither ENTRYPOINT nor CMD")]
    NothingToRun { image: PathBuf },
    /// The guest would not run it.
    #[error("cannot run the job in {image:?}")]
    Refused { image: PathBuf, source: CallError },
    /// QEMU has no jailer.
    #[error("only Firecracker can be locked up with --jailer")]
    JailedQemu,
    /// Firecracker emulates nothing.
    #[error("Firecracker runs machines of this host's processor only, not {arch}")]
    FirecrackerArch { arch: firebrick_vmm::Arch },
    /// There is Firecracker alone, and no KVM for it.
    #[error(
        "no VMM can run here: Firecracker needs KVM ({reason}), and QEMU, which does without, is not installed"
    )]
    NoVmm { reason: String },
    /// No pool of that name.
    #[error("there is no pool {name:?}")]
    NoPool { name: String },
    /// A pool of that name.
    #[error("there is a pool {name:?} already")]
    PoolExists { name: String },
    /// A keeper that is stopped or overloaded.
    #[error("cannot ask the pool {name:?}")]
    PoolSilent {
        name: String,
        pid: Option<i32>,
        log: PathBuf,
        source: io::Error,
    },
    /// The keeper of a pool could not begin.
    #[error("cannot start the pool: {words}")]
    KeeperEnded { words: String, image: String },
    /// Somebody ended it before its VMs were up.
    #[error("the pool {name:?} was stopped while it was started")]
    PoolStopped { name: String },
    /// `--pool` was given, and no VM of a pool can be had.
    #[error("no VM of a pool can be had: {reason}")]
    NotFromPool { reason: String },
    /// The guest said so on its console.
    #[error("the VM did not end in order: {words}")]
    BadEnd { words: String },
    /// The VMM itself failed.
    #[error("the VM did not end in order: the VMM ended with {how}{}{complaints}", if complaints.is_empty() { "" } else { ": " })]
    VmmEnded { how: String, complaints: String },
    /// What was to be printed cannot be.
    #[error("cannot write to stdout")]
    Stdout { source: io::Error },
    /// Stdout was closed by its reader; never shown.
    #[error("stdout was closed")]
    ClosedStdout,
}

/// Writes data to stdout. A closed pipe becomes [`CliError::ClosedStdout`], which ends the program silently.
pub(crate) fn write_stdout(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(stdout_error)
}

/// The error for a failed write to stdout.
pub(crate) fn stdout_error(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ClosedStdout.into(),
        _ => CliError::Stdout { source: error }.into(),
    }
}

pub(crate) fn is_closed_stdout(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CliError::ClosedStdout))
}

/// Prints an `error:` line of its own.
pub(crate) fn say(text: &str) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {}", printable(text));
}

/// Prints what a program said last, before the error that says how it ended.
pub(crate) fn quote(lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(anstream::stderr(), "      | {line}");
    }
}

/// Prints a `hint:` line of its own.
pub(crate) fn hint(text: &str) {
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let _ = writeln!(anstream::stderr(), "{cyan}hint:{cyan:#} {text}");
}

/// Prints the error, its causes and what helps.
pub(crate) fn print(error: &anyhow::Error) {
    for (index, text) in chain_texts(error).iter().enumerate() {
        match index {
            0 => say(text),
            _ => {
                let _ = writeln!(anstream::stderr(), "caused by: {text}");
            }
        }
    }
    for advice in crate::hints::of(error) {
        hint(&advice);
    }
}

/// The text of every error in the chain, without those that an outer text already ends with.
pub(crate) fn chain_texts(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = printable(&cause.to_string());
        if !texts.last().is_some_and(|outer| outer.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts
}

/// Text from outside (registries, images) must not move the cursor or fake lines.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\n  "),
            '\t' => out.push(character),
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_and_cannot_move_the_cursor() {
        let inner = io::Error::other("disk\x1b[2J gone");
        let error = anyhow::Error::new(inner)
            .context("cannot read: disk\x1b[2J gone")
            .context("cannot build");
        assert_eq!(
            chain_texts(&error),
            ["cannot build", "cannot read: disk\\u{1b}[2J gone"]
        );
    }
}
