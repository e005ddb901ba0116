//! `firebrick store serve`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_serve::{Event, Options, Server};
use firebrick_store::Reference;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::write_stdout;
use crate::home::Home;
use crate::lazy::{self, LazyDisk, Told};
use crate::remote::{self, StoreArgs};
use crate::talk::Talk;

/// Give an image as a disk without fetching it first
///
/// What is read of it is fetched then, verified, and kept in the cache. Ends at Ctrl-C, and says what was fetched.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image in the store
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    image: Reference,

    /// Where programs that speak NBD find it: unix:PATH
    #[arg(long, value_name = "unix:PATH", value_parser = parse_socket)]
    nbd: PathBuf,

    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let lazy = lazy::open(&args.store, &args.image, home, talk)?;
    let serving = || format!("cannot serve {} at {:?}", args.image, args.nbd);
    let server = Server::bind(&args.nbd, Options::default()).with_context(serving)?;
    let stopper = server.stopper();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let handle = signals.handle();
    let stop = lazy.stop();
    let waiting = std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop();
            stopper.stop();
        }
    });
    talk.say(&format!(
        "serving {} at {}; Ctrl-C ends it",
        args.image,
        args.nbd.display()
    ));
    write_stdout(format!("nbd+unix:///?socket={}\n", args.nbd.display()).as_bytes())?;
    let disk = LazyDisk(Arc::clone(&lazy.lazy));
    let talking = *talk;
    let told = Told::default();
    let result = server.serve(&disk, &|event| tell(&event, &told, talking));
    handle.close();
    let _ = waiting.join(); // it cannot panic
    talk.say(&lazy::report(&lazy.lazy.counts()));
    result.with_context(serving)
}

fn tell(event: &Event, told: &Told, talk: Talk) {
    match event {
        Event::Failed { error, .. } => {
            let words = format!("a read failed: {}", remote::Chain(error));
            if told.is_new(&words) {
                talk.warn(&words);
            }
        }
        other => talk.detail(&format!("{other:?}")),
    }
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| format!("{text:?} is no place for it: expected unix:PATH"))?;
    std::path::absolute(path).map_err(|error| error.to_string())
}
