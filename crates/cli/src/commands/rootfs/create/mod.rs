//! `firebrick rootfs create`.

mod args;

use std::sync::Arc;

pub(crate) use args::Args;

use super::installing::Installing;
use super::making::{Contents, Making};
use crate::home::Home;
use crate::talk::{Steps, Talk};

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let set = args.package_set()?;
    let making = Making::new(args.image_name(), &args.made, home)?;
    let script = args.script.read()?;
    // A script is one more of them.
    let steps = Arc::new(Steps::new(talk, if script.is_some() { 7 } else { 6 }));
    let installing = Installing::begin(&set, home, *talk, &steps)?;
    let mut settings = args.made.settings.to_settings()?;
    settings.files = args.files();
    let contents = Contents::with(&args.made, settings, installing.image())?;
    let (mut image, reading) = installing.read(script.is_some())?;
    let in_image = &args.script.steps;
    let running = making.running(in_image.limits(), &args.limits, &contents, true);
    let made = script
        .map(|script| script.run(in_image.network, &running, &mut image, home, *talk, &steps))
        .transpose()?;
    let report = making
        .build(&image, &contents, &args.limits, &steps, reading)
        .map_err(|error| installing.failure(anyhow::Error::new(error)))?;
    drop((made, installing));
    making.finish(home, talk, &contents, &report, None)
}
