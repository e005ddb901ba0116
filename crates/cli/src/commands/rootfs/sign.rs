//! `firebrick rootfs sign`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::Reference;
use serde_json::json;

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::{text, trust};

/// Sign an image in a store, under its name
///
/// A signature is for one version under one NAME:TAG. Without @DIGEST it is for what the store says that the name means now.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which version
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    reference: Reference,

    /// Sign with the private key in this file
    #[arg(long, value_name = "KEY")]
    sign: PathBuf,

    #[command(flatten)]
    store: StoreArgs,

    /// Print a JSON object with name, digest and the id of the key
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let key = trust::private_key(&args.sign, talk)?;
    let steps = Arc::new(Steps::new(talk, 1));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let address = store.backend().address();
    let signing = || format!("cannot sign {} in {address}", args.reference);
    let version = store.find(&args.reference).with_context(signing)?;
    let signature = store.sign(&version, &key).with_context(signing)?;
    let id = key.public().id();
    let tagged = &version.tagged;
    talk.say(&format!("signed {tagged} by the key {id}"));
    if args.json {
        return write_stdout(&text::json_line(&json!({
            "store": address,
            "name": tagged.name.as_str(),
            "tag": tagged.tag.as_str(),
            "digest": version.digest.to_string(),
            "signed_by": id.to_string(),
            "signature": signature.to_string(),
        })));
    }
    write_stdout(format!("{tagged}@{}\n", version.digest).as_bytes())
}
