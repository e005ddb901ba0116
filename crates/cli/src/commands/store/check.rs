//! `firebrick store check`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use firebrick_store::{CheckOptions, Checked, Fault, Finding, LocalImage, Progress, Published, Seal};
use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::images;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text;

/// Read everything in a store again, and verify it
///
/// Exit code 1: something is not right.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Make again what can be made again: out of what else is in the store, and of the images of this host
    #[arg(long)]
    repair: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<ExitCode> {
    let steps = Arc::new(Steps::new(talk, 1));
    let (shown, talking) = (Arc::clone(&steps), *talk);
    let listener = Box::new(move |progress: Progress<'_>| match progress {
        Progress::Check { done, of } => {
            shown.begin(1, "Reading everything");
            shown.progress(done, of, "verified");
        }
        Progress::Ignored(version, error) => {
            talking.warn(&format!("{} cannot be read: {error}", version.tagged))
        }
        _ => {}
    });
    let store = args.store.open_existing(home, listener)?;
    let seal = args.store.seal()?;
    let local = if args.repair {
        local(home, &seal)?
    } else {
        Vec::new()
    };
    let checked = store
        .check(&CheckOptions {
            repair: args.repair,
            keys: &seal,
            local: &local,
            threads: remote::threads(),
        })
        .with_context(|| format!("cannot check {}", store.backend().address()))?;
    steps.finish();
    let is_mended = checked.findings.iter().all(|finding| finding.repaired)
        && checked.flaws.iter().all(|flaw| flaw.repaired);
    let code = match is_mended && checked.spoiled.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if args.json {
        write_stdout(&text::json_line(&to_json(&checked)))?;
        return Ok(code);
    }
    write_stdout(report(&checked).as_bytes())?;
    if !checked.spoiled.is_empty() {
        crate::error::hint(&format!(
            "whole files are not made again, but sent: firebrick rootfs upload --plain -l NAME{}",
            remote::flags()
        ));
    }
    if !is_mended && !args.repair {
        crate::error::hint(&format!(
            "mend what can be mended: firebrick store check --repair{}",
            remote::flags()
        ));
    }
    Ok(code)
}

/// The images of this host, for what they have of damaged bundles.
fn local(home: &Home, seal: &Seal) -> anyhow::Result<Vec<LocalImage>> {
    let cache = remote::cache(home).tables();
    let stop = AtomicBool::new(false);
    let open = |path| LocalImage::open(path, seal, Some(&cache), true, remote::threads(), &stop);
    // One that cannot be read has nothing for us.
    Ok(images::list(home)?
        .iter()
        .filter_map(|image| open(&image.path).ok().flatten())
        .collect())
}

fn report(checked: &Checked) -> String {
    let mut lines: Vec<String> = checked.findings.iter().map(line).collect();
    lines.extend(checked.flaws.iter().map(|flaw| {
        let state = if flaw.repaired { "put right" } else { "wrong" };
        format!("{state}: {}: {}", flaw.what, flaw.problem)
    }));
    lines.extend(
        checked
            .broken
            .iter()
            .map(|version| format!("not whole: {}", name(version))),
    );
    lines.extend(
        checked
            .sealed
            .iter()
            .map(|version| format!("encrypted, only its blobs were verified: {}", name(version))),
    );
    let spoiled = checked.spoiled.iter();
    lines.extend(spoiled.map(|(key, problem)| format!("wrong: whole file {key} {problem}")));
    let unverified = checked.unverified.iter();
    lines.extend(unverified.map(|key| format!("unverified, since no {key}.sha256 is there: {key}")));
    if checked.whole.count > 0 {
        lines.push(format!(
            "{} ({}), {} unverified",
            text::count(checked.whole.count, "whole file"),
            text::bytes(checked.whole.bytes),
            checked.unverified.len()
        ));
    }
    lines.push(format!(
        "{}, {} and {} read; {} needless ({})",
        text::count(checked.images, "image"),
        text::count(checked.read.count, "blob"),
        text::bytes(checked.read.bytes),
        text::count(checked.unreached.count, "blob"),
        text::bytes(checked.unreached.bytes),
    ));
    lines.push(String::new());
    lines.join("\n")
}

fn name(version: &Published) -> String {
    format!("{}@sha256:{}", version.tagged, version.digest.short())
}

fn line(finding: &Finding) -> String {
    let images: Vec<String> = finding.images.iter().map(name).collect();
    let lost = if finding.chunks > 0 {
        format!(
            ": {} of images, {}",
            text::bytes(finding.lost),
            text::count(finding.chunks, "chunk")
        )
    } else {
        String::new()
    };
    let state = if finding.repaired { "made again" } else { "wrong" };
    let of = if images.is_empty() {
        String::new()
    } else {
        format!(", of {}", images.join(", "))
    };
    format!(
        "{state}: blob {} {}{lost}{of}",
        finding.blob,
        words(&finding.fault)
    )
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Missing => "is missing".to_owned(),
        Fault::Length { expected, found } => format!("has {found} bytes in place of {expected}"),
        Fault::Damaged { found } => format!("has the digest {found}"),
        Fault::Unreadable(words) => format!("cannot be read: {words}"),
        Fault::Wrong(words) => format!("is not what it should be: {words}"),
        Fault::Chunks => "lacks chunks that a table promises".to_owned(),
        _ => "is not right".to_owned(),
    }
}

fn to_json(checked: &Checked) -> Value {
    let names = |versions: &[Published]| {
        versions
            .iter()
            .map(|one| format!("{}@{}", one.tagged, one.digest))
            .collect::<Vec<_>>()
    };
    let findings = checked.findings.iter().map(|finding| {
        json!({
            "blob": finding.blob.to_string(),
            "problem": words(&finding.fault),
            "chunks": finding.chunks,
            "lost_bytes": finding.lost,
            "images": names(&finding.images),
            "repaired": finding.repaired,
        })
    });
    let spoiled = checked
        .spoiled
        .iter()
        .map(|(key, problem)| json!({ "key": key, "problem": problem }));
    let flaws = checked
        .flaws
        .iter()
        .map(|flaw| json!({ "what": flaw.what, "problem": flaw.problem, "repaired": flaw.repaired }));
    json!({
        "images": checked.images,
        "foreign": checked.foreign,
        "encrypted": names(&checked.sealed),
        "read": { "count": checked.read.count, "bytes": checked.read.bytes },
        "chunks": checked.chunks,
        "unreached": { "count": checked.unreached.count, "bytes": checked.unreached.bytes },
        "leftovers": { "count": checked.leftovers.count, "bytes": checked.leftovers.bytes },
        "broken": names(&checked.broken),
        "whole_files": {
            "count": checked.whole.count, "bytes": checked.whole.bytes, "unverified": checked.unverified,
            "wrong": spoiled.collect::<Vec<_>>(),
        },
        "findings": findings.collect::<Vec<_>>(),
        "flaws": flaws.collect::<Vec<_>>(),
    })
}
