//! One file a command: its flags and what it does.

pub(crate) mod boot;
pub(crate) mod cache;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod guest;
pub(crate) mod man;
pub(crate) mod pool;
pub(crate) mod recipe;
pub(crate) mod rootfs;
pub(crate) mod run;
pub(crate) mod setup;
pub(crate) mod store;

use std::process::ExitCode;

use crate::args::Command;
use crate::talk::Talk;

/// Runs the command that was asked for.
pub(crate) fn run(command: Command, talk: &Talk) -> anyhow::Result<ExitCode> {
    match command {
        Command::Rootfs(rootfs) => return rootfs::run(*rootfs, talk),
        Command::Run(args) => return run::run(&args, talk),
        Command::Recipe(command) => recipe::run(&command, talk)?,
        Command::Pool(command) => pool::run(&command, talk)?,
        Command::Boot(args) => return boot::run(&args, talk),
        Command::Guest(args) => return guest::run(&args),
        Command::Setup(args) => return setup::run(&args, talk),
        Command::Doctor(args) => return doctor::run(&args),
        Command::Store(command) => return store::run(&command, talk),
        Command::Cache(command) => cache::run(command, talk)?,
        Command::Completions(args) => completions::run(&args)?,
        Command::Man(args) => man::run(&args, talk)?,
    }
    Ok(ExitCode::SUCCESS)
}
