//! `firebrick rootfs verify`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Published, Reference, Skipped, Store};
use firebrick_trust::{PublicKey, Refusal};
use serde_json::json;

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;
use crate::trust::{self, HostPolicy, Refused};

/// Tell who signed an image in a store
///
/// Prints a line for each key that signed this version under this name: its id and where it stands. With --public, exit code 0 means
/// that at least one of the given keys signed it; without, that the policy allows the image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which version
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    reference: Reference,

    /// Ask for the public key in this file, in place of the policy (repeatable)
    #[arg(long, value_name = "KEY")]
    public: Vec<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,

    /// Print a JSON object with name, digest, keys, and what does not count and why
    #[arg(long)]
    json: bool,
}

/// What was found out about a version.
struct Found {
    /// Keys that signed it, with where each stands.
    by: Vec<(PublicKey, String)>,
    /// Why signatures say nothing for it.
    discounted: Vec<String>,
    skipped: Vec<Skipped>,
    refused: Option<anyhow::Error>,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let keys = args.public.iter().map(|path| trust::public_key(path));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let policy = match keys.is_empty() {
        true => Some(HostPolicy::of_process()?.ok_or(Refused::NothingToVerifyBy)?),
        false => None,
    };
    let steps = Arc::new(Steps::new(talk, 1));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let verifying = || {
        format!(
            "cannot verify {} in {}",
            args.reference,
            store.backend().address()
        )
    };
    let version = store.find(&args.reference).with_context(verifying)?;
    let found = match &policy {
        Some(policy) => by_policy(policy, &store, &version).with_context(verifying)?,
        None => by_keys(args, &keys, &store, &version).with_context(verifying)?,
    };
    for reason in &found.discounted {
        talk.warn(&format!("a signature says nothing for it: {reason}"));
    }
    trust::warn_of(&found.skipped, talk);
    if args.json {
        write_stdout(&to_json(&store, &version, &found))?;
    } else {
        let lines = found
            .by
            .iter()
            .map(|(key, place)| format!("{} {place}\n", key.id()));
        write_stdout(lines.collect::<String>().as_bytes())?;
    }
    match found.refused {
        Some(refused) => Err(refused).with_context(verifying),
        None => {
            if found.by.is_empty() {
                talk.say("the policy allows it without a signature");
            }
            Ok(())
        }
    }
}

fn by_keys(args: &Args, keys: &[PublicKey], store: &Store, version: &Published) -> anyhow::Result<Found> {
    let verified = store.verify(version, keys)?;
    let places = keys.iter().zip(&args.public);
    let by: Vec<_> = places
        .filter(|(key, _)| verified.by.contains(key))
        .map(|(key, path)| (key.clone(), path.display().to_string()))
        .collect();
    let refused = by.is_empty().then(|| Refused::NotSigned {
        version: version.version(),
        store: store.backend().address().to_owned(),
    });
    Ok(Found {
        by,
        discounted: verified.discounted,
        skipped: verified.skipped,
        refused: refused.map(anyhow::Error::new),
    })
}

fn by_policy(policy: &HostPolicy, store: &Store, version: &Published) -> anyhow::Result<Found> {
    let signatures = store.signatures(version)?;
    let address = store.backend().address();
    let judged = policy.judge(address, &version.version(), &signatures.found);
    let (by, discounted, refused) = match judged {
        Ok(by) => (by, Vec::new(), None),
        Err(refused) => {
            let (by, discounted) = match refused.downcast_ref() {
                Some(Refused::Version {
                    source: Refusal::TooFew { by, discounted, .. },
                    ..
                }) => (by.clone(), discounted.clone()),
                _ => Default::default(),
            };
            (by, discounted, Some(refused))
        }
    };
    Ok(Found {
        by: by.into_iter().map(|key| (key.key, key.label)).collect(),
        discounted,
        skipped: signatures.skipped,
        refused,
    })
}

fn to_json(store: &Store, version: &Published, found: &Found) -> Vec<u8> {
    let by = found.by.iter().map(|(key, place)| {
        json!({ "id": key.id().to_string(), "algorithm": key.algorithm().to_string(), "key": place })
    });
    let skipped = found
        .skipped
        .iter()
        .map(|one| json!({ "manifest": one.manifest.to_string(), "problem": one.problem }));
    text::json_line(&json!({
        "store": store.backend().address(),
        "name": version.tagged.name.as_str(),
        "tag": version.tagged.tag.as_str(),
        "digest": version.digest.to_string(),
        "allowed": found.refused.is_none(),
        "signed_by": by.collect::<Vec<_>>(),
        "discounted": found.discounted,
        "skipped": skipped.collect::<Vec<_>>(),
    }))
}
