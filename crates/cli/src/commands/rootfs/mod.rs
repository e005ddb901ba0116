//! `firebrick rootfs …`.

pub(crate) mod build;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod download;
pub(crate) mod du;
pub(crate) mod edit;
pub(crate) mod export;
pub(crate) mod from_docker;
pub(crate) mod import;
pub(crate) mod inspect;
mod installing;
pub(crate) mod list;
pub(crate) mod ls;
mod making;
mod nex;
mod place;
mod put;
pub(crate) mod resize;
pub(crate) mod rm;
pub(crate) mod sign;
pub(crate) mod tag;
mod take;
pub(crate) mod tree;
pub(crate) mod update_agent;
pub(crate) mod upload;
pub(crate) mod verify;

use std::process::ExitCode;

use crate::home::Home;
use crate::talk::Talk;

/// Make, list and look into images
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct Rootfs {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    nex: Option<nex::Args>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    FromDocker(Box<from_docker::Args>),
    Build(Box<build::Args>),
    Create(Box<create::Args>),
    List(list::Args),
    Upload(upload::Args),
    Download(download::Args),
    Tag(tag::Args),
    Export(export::Args),
    Import(import::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Tree(tree::Args),
    Du(du::Args),
    Diff(diff::Args),
    Cp(cp::Args),
    Edit(Box<edit::Args>),
    UpdateAgent(update_agent::Args),
    Resize(resize::Args),
    Check(check::Args),
    Convert(Box<convert::Args>),
    Rm(rm::Args),
}

pub(crate) fn run(rootfs: Rootfs, talk: &Talk) -> anyhow::Result<ExitCode> {
    let home = Home::of_process()?;
    let command = match (rootfs.command, rootfs.nex) {
        (Some(command), None) => command,
        (Some(_), Some(_)) => {
            anyhow::bail!("--image makes an image for Nex, without a command: firebrick rootfs --help")
        }
        (None, Some(args)) => {
            nex::run(&args, &home, talk)?;
            return Ok(ExitCode::SUCCESS);
        }
        (None, None) => anyhow::bail!("neither a command nor an image is named: firebrick rootfs --help"),
    };
    match command {
        Command::FromDocker(args) => from_docker::run(&args, &home, talk),
        Command::Build(args) => build::run(&args, &home, talk),
        Command::Create(args) => create::run(&args, &home, talk),
        Command::List(args) => list::run(&args, &home, talk),
        Command::Upload(args) => upload::run(&args, &home, talk),
        Command::Download(args) => download::run(&args, &home, talk),
        Command::Tag(args) => tag::run(&args, &home, talk),
        Command::Export(args) => export::run(&args, &home, talk),
        Command::Import(args) => import::run(&args, &home, talk),
        Command::Sign(args) => sign::run(&args, &home, talk),
        Command::Verify(args) => verify::run(&args, &home, talk),
        Command::Inspect(args) => inspect::run(&args, &home, talk),
        Command::Ls(args) => ls::run(&args, &home),
        Command::Cat(args) => cat::run(&args, &home),
        Command::Tree(args) => tree::run(&args, &home),
        Command::Du(args) => du::run(&args, &home),
        Command::Diff(args) => return diff::run(&args, &home),
        Command::Cp(args) => cp::run(&args, &home, talk),
        Command::Edit(args) => edit::run(&args, &home, talk),
        Command::UpdateAgent(args) => update_agent::run(&args, &home, talk),
        Command::Resize(args) => resize::run(&args, &home, talk),
        Command::Check(args) => return check::run(&args, &home, talk),
        Command::Convert(args) => convert::run(&args, &home, talk),
        Command::Rm(args) => rm::run(&args, &home, talk),
    }?;
    Ok(ExitCode::SUCCESS)
}
