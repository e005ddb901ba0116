//! `firebrick rootfs check`.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use firebrick_build::ImageCopy;
use firebrick_ext4::check::{Report, check};
use firebrick_ext4::read::{ReadAt, ReadError};
use serde_json::json;

use crate::edited::{Refusal, Turn, ensure_unused};
use crate::error::{self, CliError, write_stdout};
use crate::home::Home;
use crate::images;
use crate::talk::Talk;
use crate::text;
use crate::trust;
use crate::volume::Kind;

/// Something is wrong with the image, and still is.
const WRONG: u8 = 1;

/// Check an ext4 image, and repair what follows from the rest
///
/// Finds what `e2fsck -fn` finds, in images of firebrick and of others: checksums, inodes, maps of blocks, folders and their indexes,
/// extended attributes, links, bitmaps and counts. Nothing is mounted, and the image itself is never changed.
///
/// Exit code 0: nothing is wrong, or --repair put all of it right. 1: something is wrong. 2: firebrick failed, or the image has
/// what is not checked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    #[arg(value_name = "IMAGE")]
    image: OsString,

    /// Put right what is only counted: bitmaps, counts and checksums; nothing at all if more is wrong
    ///
    /// The repaired copy takes the image's place. Where a checksum does not fit, and counts do not either, the damage is
    /// elsewhere, and is left to e2fsck.
    #[arg(long)]
    repair: bool,

    /// With --repair, write the repaired image here, and leave the other as it is
    #[arg(short, long, value_name = "PATH", requires = "repair")]
    output: Option<PathBuf>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<ExitCode> {
    let path = images::find(home, &args.image)?;
    let _turn = match args.repair && args.output.is_none() {
        true => Some(Turn::wait(&path, talk)?),
        false => None,
    };
    let file = File::open(&path).with_context(|| format!("cannot open {path:?}"))?;
    ensure_unused(&file, &path)?;
    match Kind::of(&file).with_context(|| format!("cannot read {path:?}"))? {
        Some(Kind::Ext4) => {}
        Some(Kind::Squashfs) => return Err(Refusal::NotChecked { image: path }.into()),
        None => return Err(CliError::NoFilesystem).with_context(|| format!("cannot check {path:?}")),
    }
    let report = checked(&file, &path)?;
    let repaired = args.repair && !report.is_clean() && report.is_repairable();
    if repaired {
        let output = args.output.as_deref().unwrap_or(&path);
        trust::ensure_usable(home, &path)?;
        repair(&file, &path, output)?;
        trust::forget(home, output)?;
    }
    match args.json {
        true => write_stdout(&text::json_line(&to_json(&report, &path, repaired)))?,
        false => write_stdout(to_text(&report, &path, repaired).as_bytes())?,
    }
    if report.is_clean() || repaired {
        return Ok(ExitCode::SUCCESS);
    }
    error::hint(&advice(&report, &path));
    Ok(ExitCode::from(WRONG))
}

fn checked<R: ReadAt>(image: &R, path: &Path) -> anyhow::Result<Report> {
    match check(image) {
        Err(ReadError::Unsupported { feature }) => {
            let image = path.to_owned();
            Err(Refusal::UncheckedFeature { image, feature }.into())
        }
        other => other.with_context(|| format!("cannot check {path:?}")),
    }
}

/// Repairs a copy, and makes sure of it.
fn repair(file: &File, path: &Path, output: &Path) -> anyhow::Result<()> {
    let copy = ImageCopy::of(file, output)
        .with_context(|| format!("cannot copy {path:?} to repair it, for {output:?}"))?;
    // The copy itself: the image may have changed since.
    let report = checked(&copy, path)?;
    report
        .repair(&copy)
        .with_context(|| format!("cannot repair {path:?}; it stays as it was"))?;
    let left = checked(&copy, path)?;
    ensure!(
        left.is_clean(),
        "the repair of {path:?} leaves {}; the image stays as it was",
        text::count(as_u64(left.findings.len()), "finding")
    );
    copy.commit().with_context(|| format!("cannot write {output:?}"))
}

fn advice(report: &Report, path: &Path) -> String {
    let path = path.display();
    match report.is_repairable() {
        true => format!(
            "all of it follows from the rest, so put it right: firebrick rootfs check {path} --repair"
        ),
        false => {
            format!("some of it needs decisions, so repair a copy: cp {path} copy.ext4; e2fsck -f copy.ext4")
        }
    }
}

fn to_text(report: &Report, path: &Path, repaired: bool) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if report.more > 0 {
        lines.push(format!("and {} more", report.more));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    let found = as_u64(report.findings.len()).saturating_add(report.more);
    let state = match (found, repaired) {
        (0, _) => "clean".to_owned(),
        (_, true) => format!("{}, all repaired", text::count(found, "finding")),
        _ => text::count(found, "finding"),
    };
    lines.push(format!(
        "{}: {state}, {} of {} inodes and {} of {} blocks in use",
        path.display(),
        report.inodes_used,
        report.inodes,
        report.blocks_used,
        report.blocks
    ));
    lines.push(String::new());
    lines.join("\n")
}

fn to_json(report: &Report, path: &Path, repaired: bool) -> serde_json::Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| json!({ "what": finding.to_string(), "repairable": finding.is_repairable() }))
        .collect();
    json!({
        "image": path.to_string_lossy(),
        "clean": report.is_clean(),
        "repairable": report.is_repairable(),
        "repaired": repaired,
        "findings": findings,
        "more": report.more,
        "notes": report.notes,
        "inodes": { "used": report.inodes_used, "all": report.inodes },
        "blocks": { "used": report.blocks_used, "all": report.blocks },
    })
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
