//! What a second image has otherwise: a [`Diff`] is a list of [`Change`]s.

use std::cmp::Ordering;

use firebrick_reader::FileType;

use crate::{Contents, Entry, InventoryError, Listing, NodeId, digest_of, printable};

/// In what a path is another than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// A file became a directory, or the like.
    Type,
    /// A regular file's bytes.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Which device a node stands for.
    Device,
    /// Permissions.
    Mode,
    /// Owner or group.
    Owner,
    /// Extended attributes.
    Xattrs,
}

impl Aspect {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::Type => "type",
            Aspect::Content => "content",
            Aspect::Target => "target",
            Aspect::Device => "device",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Xattrs => "xattrs",
        }
    }
}

/// A path that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second has it.
    Added(NodeId),
    /// Only the first has it.
    Removed(NodeId),
    /// Both have it, and it differs in something.
    Changed {
        /// In the first.
        old: NodeId,
        /// In the second.
        new: NodeId,
        /// In what; not empty.
        aspects: Vec<Aspect>,
    },
}

/// Everything that is not the same, in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The paths.
    pub changes: Vec<Change>,
}

/// Compares two images path by path. Times are not compared: a file that only got another one is the same.
///
/// # Errors
/// Where files of one length cannot be read.
pub fn diff(old: (&Listing, &dyn Contents), new: (&Listing, &dyn Contents)) -> Result<Diff, InventoryError> {
    let mut diff = Diff::default();
    if old.0.is_empty() || new.0.is_empty() {
        return Ok(diff);
    }
    // Pairs of directories that are in both; the next one last, so that the order is that of paths.
    let mut todo = vec![Step::Pair(NodeId::ROOT, NodeId::ROOT)];
    while let Some(step) = todo.pop() {
        match step {
            Step::Pair(a, b) => {
                let aspects = aspects(old, a, new, b)?;
                let is_type = aspects.first() == Some(&Aspect::Type);
                if is_type {
                    diff.changes.extend(old.0.below(a).skip(1).map(Change::Removed));
                }
                if !aspects.is_empty() {
                    diff.changes.push(Change::Changed {
                        old: a,
                        new: b,
                        aspects,
                    });
                }
                if is_type {
                    diff.changes.extend(new.0.below(b).skip(1).map(Change::Added));
                } else {
                    todo.extend(side_by_side(old.0, a, new.0, b).into_iter().rev());
                }
            }
            Step::Old(a) => diff.changes.extend(old.0.below(a).map(Change::Removed)),
            Step::New(b) => diff.changes.extend(new.0.below(b).map(Change::Added)),
        }
    }
    Ok(diff)
}

/// What stands under one name.
#[derive(Clone, Copy)]
enum Step {
    Pair(NodeId, NodeId),
    Old(NodeId),
    New(NodeId),
}

/// The names of two directories.
fn side_by_side(old: &Listing, a: NodeId, new: &Listing, b: NodeId) -> Vec<Step> {
    let mut left = old.children(a).iter().copied().peekable();
    let mut right = new.children(b).iter().copied().peekable();
    std::iter::from_fn(|| {
        let order = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => old.node(*a).name.cmp(&new.node(*b).name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        match order {
            Ordering::Less => left.next().map(Step::Old),
            Ordering::Greater => right.next().map(Step::New),
            Ordering::Equal => left.next().zip(right.next()).map(|(a, b)| Step::Pair(a, b)),
        }
    })
    .collect()
}

fn aspects(
    (old, old_contents): (&Listing, &dyn Contents),
    a: NodeId,
    (new, new_contents): (&Listing, &dyn Contents),
    b: NodeId,
) -> Result<Vec<Aspect>, InventoryError> {
    let (was, is): (&Entry, &Entry) = (old.entry(a), new.entry(b));
    let mut aspects = Vec::new();
    if was.file_type != is.file_type {
        aspects.push(Aspect::Type);
    } else if is.file_type == FileType::Regular {
        let digest = |contents: &dyn Contents, listing: &Listing, id: NodeId| {
            digest_of(contents, listing.entry(id).inode).map_err(|source| InventoryError::Read {
                path: printable(&listing.path(id)),
                source,
            })
        };
        let same = was.size == is.size
            && (was.size == 0 || digest(old_contents, old, a)? == digest(new_contents, new, b)?);
        if !same {
            aspects.push(Aspect::Content);
        }
    }
    let others = [
        (
            Aspect::Target,
            was.file_type == is.file_type && was.target != is.target,
        ),
        (
            Aspect::Device,
            was.file_type == is.file_type && was.device != is.device,
        ),
        // The permissions of a link mean nothing.
        (
            Aspect::Mode,
            was.mode != is.mode && is.file_type != FileType::Symlink,
        ),
        (Aspect::Owner, (was.uid, was.gid) != (is.uid, is.gid)),
        (Aspect::Xattrs, was.xattrs != is.xattrs),
    ];
    aspects.extend(
        others
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(aspect, _)| aspect),
    );
    Ok(aspects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn every_aspect_is_seen_in_the_order_of_paths() {
        let base = Sample::new()
            .file("bin/a", b"same")
            .file("bin/b", b"12345")
            .file("bin/c", b"12345")
            .file("bin/long", b"12345")
            .file("etc/x", b"1")
            .file("etc/y", b"1")
            .file("etc/attr", b"1")
            .link("link", "a")
            .file("old/deep/one", b"1")
            .file("turned/below", b"1")
            .file("zero", b"");
        let old = base.clone().file("turned2", b"1");
        let new = Sample::new()
            .file("bin/a", b"same")
            .file("bin/b", b"12345")
            .file("bin/c", b"12346")
            .file("bin/long", b"123456")
            .file("etc/x", b"1")
            .change("etc/x", |entry| entry.mode = 0o600)
            .file("etc/y", b"1")
            .change("etc/y", |entry| entry.gid = 4)
            .file("etc/attr", b"1")
            .change("etc/attr", |entry| {
                entry.xattrs = Some(firebrick_digest::Digest::of(b"x"))
            })
            .link("link", "b")
            .file("new/one", b"1")
            .file("turned", b"1")
            .file("turned2/below", b"1")
            .file("zero", b"");
        let (from, to) = (old.listing(), new.listing());
        let found = diff((&from, &old), (&to, &new)).unwrap();
        let lines: Vec<String> = found
            .changes
            .iter()
            .map(|change| match change {
                Change::Added(id) => format!("+ {}", printable(&to.path(*id))),
                Change::Removed(id) => format!("- {}", printable(&from.path(*id))),
                Change::Changed { new, aspects, .. } => {
                    let names: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
                    format!("~ {} {}", printable(&to.path(*new)), names.join(","))
                }
            })
            .collect();
        assert_eq!(
            lines,
            [
                "~ bin/c content",
                "~ bin/long content",
                "~ etc/attr xattrs",
                "~ etc/x mode",
                "~ etc/y owner",
                "~ link target",
                "+ new",
                "+ new/one",
                "- old",
                "- old/deep",
                "- old/deep/one",
                "- turned/below",
                "~ turned type,mode",
                "~ turned2 type,mode",
                "+ turned2/below",
            ]
        );
        assert_eq!(diff((&from, &old), (&from, &old)).unwrap(), Diff::default());
    }
}
