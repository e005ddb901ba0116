//! Downloads of `setup`: single files, pinned, into a folder of the state that outlives the run, so that the next goes on.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_digest::Digest;
use firebrick_source::{Event, Options, RegistryOptions, fetch_file};

use crate::downloads;
use crate::home::Home;
use crate::proxy::proxy_of_environment;
use crate::talk::Steps;
use crate::text;

/// No kernel and no release is longer.
const LEN_MAX: u64 = 512 << 20;

/// Downloads the file and gives its path.
pub(super) fn fetch(home: &Home, url: &str, digest: Digest, steps: &Arc<Steps>) -> anyhow::Result<PathBuf> {
    let folder = downloads::of_setup(home);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create folder {folder:?}"))?;
    let heard = Arc::clone(steps);
    let options = Options {
        registry: RegistryOptions {
            proxy: proxy_of_environment(),
            ..RegistryOptions::default()
        },
        events: Arc::new(move |event| match event {
            Event::FileMovedOn {
                done_bytes,
                size_bytes,
            } => {
                heard.progress(done_bytes, size_bytes.unwrap_or(0), "downloading");
            }
            Event::Retry { url, cause, delay } => heard.note(&format!(
                "{url}: {cause}; trying again in {}",
                text::duration(delay)
            )),
            _ => {}
        }),
        ..Options::default()
    };
    steps.note(&format!("downloading {url}, which must be {digest}"));
    let dest = folder.join(digest.hex());
    fetch_file(url, digest, &dest, LEN_MAX, &options).context("cannot download what is to be set up")?;
    Ok(dest)
}
