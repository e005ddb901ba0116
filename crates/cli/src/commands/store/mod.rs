//! `firebrick store …`.

mod check;
mod gc;
mod serve;
mod stats;

use crate::home::Home;
use crate::talk::Talk;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Gc(gc::Args),
    Check(check::Args),
    Stats(stats::Args),
    Serve(serve::Args),
}

pub(crate) fn run(command: Command, talk: &Talk) -> anyhow::Result<std::process::ExitCode> {
    let home = Home::of_process()?;
    match command {
        Command::Gc(args) => gc::run(&args, &home, talk)?,
        Command::Check(args) => return check::run(&args, &home, talk),
        Command::Stats(args) => stats::run(&args, &home, talk)?,
        Command::Serve(args) => serve::run(&args, &home, talk)?,
    }
    Ok(std::process::ExitCode::SUCCESS)
}
