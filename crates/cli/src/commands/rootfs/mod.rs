//! `firebrick rootfs …`.

pub(crate) mod list;
pub(crate) mod rm;

use crate::home::Home;
use crate::talk::Talk;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Rm(rm::Args),
}

pub(crate) fn run(command: Command, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    match command {
        Command::List(args) => list::run(&args, &home, talk),
        Command::Rm(args) => rm::run(&args, &home, talk),
    }
}
