//! `firebrick rootfs export`.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Export, Reference, StoreError};

use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;
use crate::whole::NewFile;

/// Write an image of a store into one file, an OCI archive
///
/// For hosts that cannot reach the store; skopeo carries it, too. Images of this host go by way of a store: upload first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which version
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    image: Reference,

    /// The archive
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let exporting = || format!("cannot export {} from {}", args.image, store.backend().address());
    let version = store.find(&args.image).with_context(exporting)?;
    let folder = args
        .output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let writing = || format!("cannot write {:?}", args.output);
    let file = NewFile::create(&args.output).with_context(writing)?;
    let mut writer = BufWriter::new(file.file());
    let seal = args.store.seal()?;
    let export = Export {
        version: &version,
        keys: &seal,
        scratch: folder,
    };
    let exported = store
        .export(&export, &mut writer)
        .map_err(|error| match error {
            // Who reads "the archive" wants to know where that is.
            StoreError::Archive { source, .. } => anyhow::Error::new(source).context(writing()),
            other => other.into(),
        })
        .with_context(exporting)?;
    writer
        .flush()
        .and_then(|()| file.file().sync_all())
        .with_context(writing)?;
    drop(writer);
    file.finish().with_context(writing)?;
    if exported.left_out > 0 {
        talk.say(&format!(
            "left out {} that other images need, so its digest is another one",
            text::bytes(exported.left_out)
        ));
    }
    talk.say(&format!(
        "{}: {}@{}, {}",
        args.output.display(),
        version.tagged,
        exported.digest,
        text::bytes(exported.bytes)
    ));
    Ok(())
}
