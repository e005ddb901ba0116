//! What a person can do about a failure: the libraries' errors carry facts, the advice is here.

use std::error::Error;

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
    if let Some(error) = error.downcast_ref::<LaunchError>() {
        return of_launch(error).into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<KernelError>() {
        return of_kernel(error).into_iter().collect();
    }
    if let Some(BootError::NoAnswer { .. }) = error.downcast_ref() {
        return vec!["a slow host may need more time: --boot-timeout SEC".to_owned()];
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
        CliError::NotALanguage { lang } => vec![
            format!("for a command in that image: firebrick run -l {lang} -- CMD"),
            format!(
                "for code: firebrick run -l LANG -i {lang} -c CODE, where LANG is one of {}",
                crate::language::names()
            ),
        ],
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
