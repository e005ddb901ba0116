//! `firebrick setup --check`: what is there, and whether it is enough.

use std::process::ExitCode;

use firebrick_vmm::Arch;
use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::release::Release;

use super::Args;
use crate::error::write_stdout;
use crate::home::Home;
use crate::{host, text};

/// A line a thing: `ok` or `missing`, what it is, and what is known of it.
pub(super) fn run(args: &Args, home: &Home) -> anyhow::Result<ExitCode> {
    let lines = [kernel(args, home), vmm(args, home)];
    let rows: Vec<Vec<String>> = lines
        .iter()
        .flatten()
        .map(|(there, what, found)| {
            let word = if *there { "ok" } else { "missing" };
            vec![word.to_owned(), (*what).to_owned(), found.clone()]
        })
        .collect();
    write_stdout(text::table(&rows).as_bytes())?;
    let enough = lines.iter().flatten().all(|(there, ..)| *there);
    Ok(if enough {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Line = (bool, &'static str, String);

fn kernel(args: &Args, home: &Home) -> Vec<Line> {
    let kernel = Kernel::default_for(home.data(), args.arch());
    let kernel = kernel.and_then(|kernel| kernel.verify().map(|()| kernel));
    let line = match kernel {
        Ok(kernel) => {
            let release = kernel.release();
            let wanted = args.kernel_version.as_deref().unwrap_or("");
            let fits = release
                .strip_prefix(wanted)
                .is_some_and(|rest| wanted.is_empty() || !rest.starts_with(|c: char| c.is_ascii_digit()));
            match fits {
                true => (true, "kernel", format!("{release} ({})", kernel.path().display())),
                false => (
                    false,
                    "kernel",
                    format!("{wanted}: the one that is set up is {release}"),
                ),
            }
        }
        Err(error) => (false, "kernel", error.to_string()),
    };
    vec![line]
}

/// A VMM must be there, and Firecracker where it is asked for.
fn vmm(args: &Args, home: &Home) -> Vec<Line> {
    let mut lines = Vec::new();
    let firecracker = Release::installed(home.data());
    let wanted = args.firecracker_version.as_deref();
    let fits = |version: &str| wanted.is_none_or(|wanted| wanted == version);
    let elsewhere = match &firecracker {
        Ok(None) => host::find_firecracker(home),
        _ => None,
    };
    match (&firecracker, &elsewhere, wanted) {
        (Ok(Some(release)), ..) => {
            let found = format!("{} ({}, {})", release.version, release.origin, release.digest);
            lines.push((fits(&release.version), "Firecracker", found));
        }
        (Ok(None), Some((program, version)), _) => {
            let found = format!("{version} ({})", program.path().display());
            lines.push((fits(version), "Firecracker", found));
        }
        (Ok(None), None, Some(wanted)) => {
            lines.push((false, "Firecracker", format!("{wanted} is not set up")));
        }
        (Ok(None), None, None) => {}
        (Err(error), ..) => lines.push((false, "Firecracker", error.to_string())),
    }
    // It is enough for this host's own processor.
    let is_there = matches!(firecracker, Ok(Some(_))) || elsewhere.is_some();
    let has_firecracker = is_there && args.arch() == Arch::HOST;
    match host::find_qemu(args.arch()) {
        Ok(program) => {
            let version = program.version().unwrap_or_else(|error| error.to_string());
            lines.push((true, "QEMU", format!("{version} ({})", program.path().display())));
        }
        Err(_) if has_firecracker => {}
        Err(error) => {
            let fixes = crate::hints::of(&error);
            lines.push((false, "QEMU", format!("{error}; {}", fixes.join("; "))));
        }
    }
    lines
}

/// What `--dry-run` says of Firecracker.
pub(super) fn firecracker_line(home: &Home) -> Option<String> {
    let release = Release::installed(home.data()).ok().flatten()?;
    Some(format!("Firecracker: {} is set up", release.version))
}
