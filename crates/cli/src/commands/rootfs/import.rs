//! `firebrick rootfs import`.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Import, Tagged};

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;

/// Take the image of an OCI archive into a store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive, by `rootfs export` or by skopeo; `-` is stdin
    #[arg(value_name = "FILE")]
    archive: PathBuf,

    /// The name that it gets in place of its own
    #[arg(short, long, value_name = "NAME[:TAG]")]
    lang: Option<Tagged>,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let importing = || {
        format!(
            "cannot import {:?} into {}",
            args.archive,
            store.backend().address()
        )
    };
    let mut reader: Box<dyn Read> = match args.archive.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::with_capacity(
            1 << 20,
            std::fs::File::open(&args.archive).with_context(importing)?,
        )),
    };
    let import = Import {
        tagged: args.lang.as_ref(),
        scratch: &std::env::temp_dir(),
        time: remote::now(),
    };
    let imported = store.import(&import, &mut reader).with_context(importing)?;
    let published = &imported.published;
    if let Some(previous) = imported.replaced.as_ref().and_then(|replaced| replaced.previous) {
        talk.say(&format!(
            "the version before stays as {}@{previous}",
            published.tagged
        ));
    }
    let said = if imported.said > 0 {
        format!(", with {}", text::count(imported.said, "signature"))
    } else {
        String::new()
    };
    talk.say(&format!("sent {}{said}", text::bytes(imported.sent)));
    write_stdout(format!("{}@{}\n", published.tagged, published.digest).as_bytes())
}
