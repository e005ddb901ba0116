//! `firebrick store …`.

mod check;
mod gc;
pub(crate) mod keygen;
mod serve;
mod stats;

use std::process::ExitCode;

use crate::home::Home;
use crate::talk::Talk;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Gc(gc::Args),
    Check(check::Args),
    Stats(stats::Args),
    Serve(serve::Args),
    Keygen(keygen::Args),
}

pub(crate) fn run(command: &Command, talk: &Talk) -> anyhow::Result<ExitCode> {
    if let Command::Keygen(args) = command {
        keygen::run(args, talk)?; // which needs no home
        return Ok(ExitCode::SUCCESS);
    }
    let home = Home::of_process()?;
    match command {
        Command::Gc(args) => gc::run(args, &home, talk)?,
        Command::Check(args) => return check::run(args, &home, talk),
        Command::Stats(args) => stats::run(args, &home, talk)?,
        Command::Serve(args) => serve::run(args, &home, talk)?,
        Command::Keygen(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}
