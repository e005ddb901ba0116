//! `firebrick rootfs tag`.

use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Reference, Tagged};

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};

/// Give an image in a store another name, or an older version its name back
///
/// Nothing is sent: both names mean the same image then.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which version
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    from: Reference,

    /// The name that it gets
    #[arg(value_name = "NAME[:TAG]")]
    to: Tagged,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let steps = Arc::new(Steps::new(talk, 1));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let tagging = || {
        format!(
            "cannot name {} {} in {}",
            args.from,
            args.to,
            store.backend().address()
        )
    };
    let version = store.find(&args.from).with_context(tagging)?;
    let replaced = store
        .tag(&version, &args.to, remote::now())
        .with_context(tagging)?;
    if let Some(previous) = replaced.previous {
        talk.say(&format!("the version before stays as {}@{previous}", args.to));
    }
    write_stdout(format!("{}@{}\n", args.to, version.digest).as_bytes())
}
