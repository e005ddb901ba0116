//! `firebrick rootfs rm`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Name, Published, Reference, Store, Tag};

use super::download::KERNEL;
use super::upload::plain_key;
use crate::home::Home;
use crate::images;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::trust;

/// Delete images by name, here or in a store
///
/// Deletes nothing if one of the names has no image. Downloads of it that were ended go, too. In a store NAME is NAME:latest and loses all
/// its versions, other tags stay, and NAME@DIGEST is only that version; what no image needs any more is freed by `firebrick store gc`.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| StoreArgs::requiring("remote", &[], arg)))]
pub(crate) struct Args {
    /// Names, as `rootfs list` shows them; with --remote also NAME:TAG and NAME@DIGEST
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,

    /// Delete in the store
    #[arg(short, long)]
    remote: bool,

    /// With --remote: the whole file rootfs-NAME.ext4
    #[arg(long, requires = "remote")]
    plain: bool,

    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if args.remote {
        return remote_rm(args, home, talk);
    }
    let mut paths = args
        .names
        .iter()
        .map(|name| local(name, home))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    paths.sort();
    paths.dedup(); // `rm a a` is one image
    for path in paths {
        fs::remove_file(&path).with_context(|| format!("cannot delete {path:?}"))?;
        trust::forget(home, &path)?;
        talk.say(&format!("deleted {}", path.display()));
    }
    Ok(())
}

/// The files of a name of this host, and what came of downloads that were ended, where there are no tags and versions.
fn local(name: &Reference, home: &Home) -> anyhow::Result<Vec<PathBuf>> {
    if name.digest.is_some() || name.tagged.tag != Tag::default() {
        anyhow::bail!(
            "images of this host have no tags and versions: give the name alone, or --remote for {name} in the store"
        );
    }
    let name = name.tagged.name.as_str();
    let unfinished = images::unfinished(home).into_iter();
    let unfinished: Vec<PathBuf> = unfinished
        .filter(|one| one.name == name)
        .map(|one| one.path)
        .collect();
    match images::files_of(home, name) {
        files if files.is_empty() && unfinished.is_empty() => images::find_named(home, name),
        files => Ok([files, unfinished].concat()),
    }
}

fn remote_rm(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let address = store.backend().address();
    let deleting = |name: &Reference| format!("cannot delete {name} in {address}");
    let mut plain = Vec::new();
    for name in &args.names {
        if args.plain {
            let found = whole_files(&store, name).with_context(|| deleting(name))?;
            anyhow::ensure!(!found.is_empty(), "{address} has no whole file of {name}");
            plain.extend(found);
        } else {
            let version = store.find(name).with_context(|| deleting(name))?;
            let others = store
                .backend()
                .history(&name.tagged)
                .with_context(|| deleting(name))?
                .len()
                - 1;
            if name.digest.is_some() && version.current && others > 0 {
                anyhow::bail!(
                    "{name} is what {} means now: name another version first (firebrick rootfs tag {0}@DIGEST {0}), or delete {0} with all {} versions",
                    name.tagged,
                    others + 1
                );
            }
        }
    }
    for key in plain {
        store
            .remove_plain(&key)
            .with_context(|| format!("cannot delete {key} in {address}"))?;
        talk.say(&format!("deleted {address}/{key}"));
    }
    if args.plain {
        return Ok(());
    }
    let names: BTreeSet<&Name> = args.names.iter().map(|one| &one.tagged.name).collect();
    for name in names {
        let meant: Vec<&Reference> = args.names.iter().filter(|one| one.tagged.name == *name).collect();
        remove(&store, name, &meant, talk)?;
    }
    Ok(())
}

/// The whole files that a name means: the kernel by its own, images in any format.
fn whole_files(store: &Store, name: &Reference) -> anyhow::Result<Vec<String>> {
    let there = store.plain_images()?;
    let is_there = |key: &String| there.iter().any(|image| image.key == *key);
    let kernel = KERNEL.to_owned();
    let is_kernel =
        name.digest.is_none() && name.tagged.tag == Tag::default() && name.tagged.name.as_str() == KERNEL;
    if is_kernel && is_there(&kernel) {
        return Ok(vec![kernel]);
    }
    let keys = images::FORMATS
        .iter()
        .map(|format| plain_key(&name.tagged, format));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(keys.into_iter().filter(is_there).collect())
}

/// Deletes versions of a name together, since some registries remove an image with all its names or not at all.
fn remove(store: &Store, name: &Name, meant: &[&Reference], talk: &Talk) -> anyhow::Result<()> {
    let which = |version: &Published| {
        meant.iter().any(|one| {
            version.tagged == one.tagged && one.digest.is_none_or(|digest| version.digest == digest)
        })
    };
    let removed = store.backend().remove(name, &which).with_context(|| {
        let meant: Vec<String> = meant.iter().map(|one| one.to_string()).collect();
        format!(
            "cannot delete {} in {}",
            meant.join(", "),
            store.backend().address()
        )
    })?;
    for version in removed {
        talk.say(&format!("deleted {}@{}", version.tagged, version.digest));
    }
    Ok(())
}
