//! `firebrick rootfs list`.

use serde_json::json;

use crate::error::write_stdout;
use crate::home::Home;
use crate::images::{self, Listed};
use crate::talk::Talk;
use crate::text;

/// List the images on this host
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print a JSON array of objects with name, path, sizes in bytes and modification time
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let images = images::list(home)?;
    if args.json {
        return write_stdout(&to_json(&images));
    }
    if images.is_empty() {
        talk.say(&format!("no images in {}", home.images().display()));
        return Ok(());
    }
    let mut rows = vec![["LANGUAGE", "SIZE", "PATH"].map(String::from).to_vec()];
    rows.extend(images.into_iter().map(|image| {
        vec![
            image.name,
            text::bytes(image.size_bytes),
            image.path.display().to_string(),
        ]
    }));
    write_stdout(text::table(&rows).as_bytes())
}

fn to_json(images: &[Listed]) -> Vec<u8> {
    let objects: Vec<_> = images
        .iter()
        .map(|image| {
            json!({
                "name": image.name,
                "path": image.path.to_string_lossy(),
                "size_bytes": image.size_bytes,
                "allocated_bytes": image.allocated_bytes,
                "modified_unix": image.modified.map(text::unix_seconds),
            })
        })
        .collect();
    text::json_line(&objects)
}
