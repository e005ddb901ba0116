//! What a person can do about a failure: the libraries' errors carry facts, the advice is here.

use std::error::Error;
use std::io;

use firebrick_build::BuildError;
use firebrick_ext4::read::ReadError;
use firebrick_layer::ScanError;
use firebrick_source::SourceError;
use firebrick_vmm::kernel::KernelError;
use firebrick_vmm::{BootError, LaunchError};

use crate::error::CliError;
use crate::home::NoHome;

/// Advice for the errors in the chain, outermost first, each once.
pub(crate) fn of(error: &anyhow::Error) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for hint in error.chain().flat_map(of_one) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

fn of_one(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return of_cli(error);
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return of_source(error).into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<BuildError>() {
        return of_build(error).into_iter().collect();
    }
    if let Some(ScanError::Limit { what, .. }) = error.downcast_ref() {
        return vec![format!(
            "if you trust the image, allow it more {what}: --max-entries N, --max-size SIZE or --max-ratio N"
        )];
    }
    if let Some(error) = error.downcast_ref::<ReadError>() {
        return of_read(error).into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<LaunchError>() {
        return of_launch(error).into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<KernelError>() {
        return of_kernel(error).into_iter().collect();
    }
    if let Some(BootError::NoAnswer { .. }) = error.downcast_ref() {
        return vec!["a slow host may need more time: --boot-timeout SEC".to_owned()];
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_host(error).into_iter().collect();
    }
    if error.is::<NoHome>() {
        return vec!["say where: export FIREBRICK_HOME=/some/folder".to_owned()];
    }
    Vec::new()
}

fn of_cli(error: &CliError) -> Vec<String> {
    match error {
        CliError::NoSuchImage { name, known, .. } => {
            let make = format!("make it: firebrick rootfs from-docker -n {name} -i IMAGE");
            if known.is_empty() {
                return vec![make];
            }
            vec![format!("there are: {}", known.join(", ")), make]
        }
        CliError::NoSuchFile { .. } => vec!["list the images of this host: firebrick rootfs list".to_owned()],
        CliError::OtherArchitecture { .. } => {
            vec!["give a static guest for it with --agent PATH".to_owned()]
        }
        CliError::ClosedStdout => Vec::new(),
    }
}

/// The library knows what helps; only the flags are ours.
fn of_source(error: &SourceError) -> Option<String> {
    match error {
        SourceError::NoPlatform { .. } => Some("choose one: --platform OS/ARCH".to_owned()),
        other => other.hint(),
    }
}

fn of_build(error: &BuildError) -> Option<String> {
    Some(match error {
        BuildError::DoesNotFit(fullness) => format!(
            "give it enough with -s {}, or let firebrick decide with -s auto",
            fullness.needed.div_ceil(1 << 20)
        ),
        BuildError::DiffId { .. } => {
            "the image is damaged or was tampered with: get it again, or push it again from where it was made"
                .to_owned()
        }
        _ => return None,
    })
}

fn of_read(error: &ReadError) -> Option<String> {
    let hint = match error {
        ReadError::Corrupt { .. } => "to see all that is wrong: e2fsck -fn FILE",
        ReadError::NeedsRecovery => "replay its journal: e2fsck -p FILE",
        ReadError::NotFound { .. } | ReadError::NotDirectory { .. } => {
            "see what is there: firebrick rootfs ls IMAGE PATH"
        }
        ReadError::WrongType { .. } => "see what it is: firebrick rootfs ls -l IMAGE PATH",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What the host says is the innermost cause, so this comes last.
fn of_host(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "paths start at this folder: pwd; ls",
        io::ErrorKind::PermissionDenied => "see who may: ls -ld on the path and the folders above it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "see what is full: df -h; or write elsewhere with -o PATH, or another FIREBRICK_HOME"
        }
        io::ErrorKind::ReadOnlyFilesystem => "write elsewhere with -o PATH, or another FIREBRICK_HOME",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_launch(error: &LaunchError) -> Option<String> {
    match error {
        LaunchError::NotInstalled { package, .. } => {
            Some(format!("install it: sudo apt-get install {package}"))
        }
        _ => None,
    }
}

fn of_kernel(error: &KernelError) -> Option<String> {
    let hint = match error {
        KernelError::NotSetUp { .. } => "get one: firebrick setup",
        KernelError::Damaged { .. } => "get it again: firebrick setup --force",
        KernelError::NoApt { .. } => {
            "where there is no apt, give a kernel package or a kernel: firebrick setup --deb FILE, or --kernel PATH"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
