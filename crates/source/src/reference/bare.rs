//! Names without a transport that mean no registry: paths, files that lie here, transports of others.
//!
//! A bare name is a repository's, as Docker writes it. Whoever means a file gets to know how to write that instead of
//! a registry's refusal.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use firebrick_registry::quote::quoted_to;

use super::Problem;
use crate::tarindex::TarIndex;

/// What firebrick opens, for messages.
const OWN: &str = "docker://, oci:, oci-archive:, docker-archive:, tar: and dir:";
const OWN_NAMES: [&str; 6] = [
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "tar",
    "dir",
];
/// Transports of skopeo and podman that have no `//`, and so look like a repository and its tag.
const OTHERS: [&str; 5] = ["containers-storage", "ostree", "sif", "tarball", "atomic"];
const ARCHIVE_SUFFIXES: [&str; 10] = [
    ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz",
];
/// Most characters of a path in a message.
const PATH_MAX: usize = 1000;
/// Entries read in search of an archive's kind.
const ENTRIES: usize = 10_000;

/// What is wrong with a text by itself, if it names no registry's repository.
pub(super) fn check(text: &str) -> Option<Problem> {
    if let Some((transport, rest)) = text.split_once(':') {
        if OTHERS.contains(&transport) {
            return Some(Problem::OtherTransport(format!(
                "the transports here are {OWN}; copy it first: skopeo copy {} oci:DIR:TAG",
                quoted_to(PATH_MAX, text)
            )));
        }
        if rest.starts_with("//") && !OWN_NAMES.contains(&transport) {
            return Some(Problem::OtherTransport(format!("the transports here are {OWN}")));
        }
    }
    let shown = quoted_to(PATH_MAX, text);
    if is_archive_name(text) {
        return Some(Problem::Path(archive_ways(&shown)));
    }
    is_path(text).then(|| {
        Problem::Path(format!(
            "oci:{shown} for an image layout, dir:{shown} for a folder, tar:{shown} for a file"
        ))
    })
}

/// As [`check`], but looks at what lies there.
pub(super) fn found(text: &str) -> Option<Problem> {
    let is_own = text
        .split_once(':')
        .is_some_and(|(transport, rest)| OWN_NAMES.contains(&transport) || rest.starts_with("//"));
    if is_own || text.is_empty() {
        return None;
    }
    let mut shown = quoted_to(PATH_MAX, text);
    let (what, ways) = match ways(Path::new(text), &shown) {
        Some(found) => found,
        // A path with a tag behind it.
        None if is_path(text) => ways(Path::new(text.split_once(':')?.0), &shown)?,
        None => return None,
    };
    // Relative or not, a path is no repository.
    if is_path(text) {
        return Some(Problem::Path(ways));
    }
    // A project may well have a folder called "python"; Docker does not look there.
    if ways.starts_with("dir:") {
        return None;
    }
    shown.insert_str(0, "docker://");
    Some(Problem::Found(format!(
        "there is {what} of that name here: write {ways}, or {shown} for a registry's"
    )))
}

/// What lies at `path`, and how `shown` is to be written to mean it.
fn ways(path: &Path, shown: &str) -> Option<(&'static str, String)> {
    let metadata = std::fs::metadata(path).ok()?;
    if metadata.is_dir() {
        let is_layout = ["index.json", "oci-layout"]
            .iter()
            .any(|name| path.join(name).exists());
        let transport = if is_layout { "oci" } else { "dir" };
        return Some(("a folder", format!("{transport}:{shown}")));
    }
    if !metadata.is_file() {
        return None;
    }
    let ways = match archive_kind(path) {
        Some(transport) => format!("{transport}:{shown}"),
        None => archive_ways(shown),
    };
    Some(("a file", ways))
}

/// The transport that an uncompressed tar is meant for. Others would have to be unpacked to know.
fn archive_kind(path: &Path) -> Option<&'static str> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 262];
    file.read_exact(&mut head).ok()?;
    if !head.ends_with(b"ustar") {
        return None;
    }
    let archive = TarIndex::read(Arc::new(file), path, ENTRIES);
    Some(match archive {
        Ok(archive) if archive.contains("manifest.json") => "docker-archive",
        Ok(archive) if archive.contains("index.json") => "oci-archive",
        _ => "tar",
    })
}

fn archive_ways(shown: &str) -> String {
    format!(
        "tar:{shown} for a root filesystem, docker-archive:{shown} for what `docker save` wrote, oci-archive:{shown} for an image layout"
    )
}

/// Nothing with a colon: that may be a tag.
fn is_archive_name(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    !text.contains(':') && ARCHIVE_SUFFIXES.iter().any(|suffix| lower.ends_with(suffix))
}

fn is_path(text: &str) -> bool {
    matches!(text, "." | "..")
        || ["/", "./", "../"].iter().any(|start| text.starts_with(start))
        || text.ends_with('/')
}
