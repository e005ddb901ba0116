//! `firebrick rootfs list`.

use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Name, PlainImage, Published, Store, StoreError};
use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::images::{self, Listed};
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;

/// List the images on this host, or in a store
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| StoreArgs::requiring("remote", &[], arg)))]
pub(crate) struct Args {
    /// List what is in the store
    #[arg(short, long)]
    remote: bool,

    /// With --remote: older versions, too
    #[arg(long, requires = "remote")]
    history: bool,

    /// With --remote: only images of this name
    #[arg(short, long, value_name = "NAME", requires = "remote")]
    lang: Option<Name>,

    #[command(flatten)]
    store: StoreArgs,

    /// Print a JSON array of objects: with name, path, sizes in bytes and modification time; of a store with name, tag, digest, size and time
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if args.remote {
        return remote_list(args, home, talk);
    }
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

/// A thing in a store.
enum Remote {
    Version(Published),
    /// An image of another program, which has no length that we know.
    Foreign(Published),
    Plain(PlainImage),
}

fn remote_list(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open_existing(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let address = store.backend().address();
    let listing = || format!("cannot list {address}");
    let mut versions = store.backend().versions().with_context(listing)?;
    versions.retain(|version| {
        (args.history || version.current)
            && args.lang.as_ref().is_none_or(|name| version.tagged.name == *name)
    });
    let mut plain = store.plain_images().with_context(listing)?;
    if let Some(name) = &args.lang {
        plain.retain(|image| images::name_of(image.key.as_ref()) == name.as_str());
    }
    let all: Vec<Remote> = versions
        .into_iter()
        .map(|version| Remote::of(version, &store))
        .chain(plain.into_iter().map(Remote::Plain))
        .collect();
    if args.json {
        return write_stdout(&text::json_line(
            &all.iter().map(Remote::to_json).collect::<Vec<_>>(),
        ));
    }
    if all.is_empty() {
        talk.say(&format!("no images in {address}"));
        return Ok(());
    }
    let key = if address.starts_with("s3://") {
        "S3 KEY"
    } else {
        "KEY"
    };
    let mut rows = vec![
        ["LANGUAGE", "SIZE", "LAST MODIFIED", key]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(all.iter().map(Remote::row));
    write_stdout(text::table(&rows).as_bytes())
}

impl Remote {
    /// What other programs copied here has no note of its length; the image knows.
    fn of(mut version: Published, store: &Store) -> Remote {
        if version.image_size == 0 {
            match store.open(&version) {
                Err(StoreError::Foreign { .. }) => return Remote::Foreign(version),
                opened => version.image_size = opened.map_or(0, |image| image.config.size),
            }
        }
        Remote::Version(version)
    }

    fn row(&self) -> Vec<String> {
        match self {
            Remote::Foreign(version) => vec![
                format!("{} (of another program)", version.tagged),
                "-".to_owned(),
                when(version.time),
                version.digest.to_string(),
            ],
            Remote::Version(version) => {
                let tagged = &version.tagged;
                let name = match tagged.tag == firebrick_store::Tag::default() {
                    true => tagged.name.to_string(),
                    false => tagged.to_string(),
                };
                let time = when(version.time);
                let name = if version.current {
                    name
                } else {
                    format!("{name} (older)")
                };
                vec![
                    name,
                    text::bytes(version.image_size),
                    time,
                    version.digest.to_string(),
                ]
            }
            Remote::Plain(image) => vec![
                images::name_of(image.key.as_ref()),
                text::bytes(image.size),
                text::utc(text::unix_seconds(image.modified)),
                image.key.clone(),
            ],
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Remote::Version(version) => json!({
                "kind": "chunks",
                "name": version.tagged.name.as_str(),
                "tag": version.tagged.tag.as_str(),
                "digest": version.digest.to_string(),
                "current": version.current,
                "size_bytes": version.image_size,
                "modified_unix": version.time,
            }),
            Remote::Foreign(version) => json!({
                "kind": "foreign",
                "name": version.tagged.name.as_str(),
                "tag": version.tagged.tag.as_str(),
                "digest": version.digest.to_string(),
                "current": version.current,
            }),
            Remote::Plain(image) => json!({
                "kind": "plain",
                "name": images::name_of(image.key.as_ref()),
                "key": image.key,
                "size_bytes": image.size,
                "modified_unix": text::unix_seconds(image.modified),
            }),
        }
    }
}

/// A time in seconds since 1970, if it is known.
pub(super) fn when(time: u64) -> String {
    match i64::try_from(time) {
        Ok(0) | Err(_) => "-".to_owned(),
        Ok(time) => text::utc(time),
    }
}
