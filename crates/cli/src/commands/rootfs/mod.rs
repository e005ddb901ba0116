//! `firebrick rootfs …`.

mod build;
pub(crate) mod cat;
pub(crate) mod diff;
pub(crate) mod du;
pub(crate) mod from_docker;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod ls;
mod making;
mod place;
pub(crate) mod rm;
pub(crate) mod tree;

use std::process::ExitCode;

use crate::home::Home;
use crate::talk::Talk;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    FromDocker(Box<from_docker::Args>),
    Build(Box<build::Args>),
    List(list::Args),
    Inspect(inspect::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Tree(tree::Args),
    Du(du::Args),
    Diff(diff::Args),
    Rm(rm::Args),
}

pub(crate) fn run(command: Command, talk: &Talk) -> anyhow::Result<ExitCode> {
    let home = Home::of_process()?;
    match command {
        Command::FromDocker(args) => from_docker::run(&args, &home, talk),
        Command::Build(args) => build::run(&args, &home, talk),
        Command::List(args) => list::run(&args, &home, talk),
        Command::Inspect(args) => inspect::run(&args, &home, talk),
        Command::Ls(args) => ls::run(&args, &home),
        Command::Cat(args) => cat::run(&args, &home),
        Command::Tree(args) => tree::run(&args, &home),
        Command::Du(args) => du::run(&args, &home),
        Command::Diff(args) => return diff::run(&args, &home),
        Command::Rm(args) => rm::run(&args, &home, talk),
    }?;
    Ok(ExitCode::SUCCESS)
}
