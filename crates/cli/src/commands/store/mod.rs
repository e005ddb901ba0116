//! `firebrick store …`.

pub(crate) mod keygen;

use crate::talk::Talk;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Keygen(keygen::Args),
}

pub(crate) fn run(command: &Command, talk: &Talk) -> anyhow::Result<()> {
    match command {
        Command::Keygen(args) => keygen::run(args, talk),
    }
}
