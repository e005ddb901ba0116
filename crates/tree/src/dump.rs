//! A tree as text, one name a line, for tests and for people.

use std::fmt::{self, Write as _};

use crate::entry::{DeviceKind, Metadata};
use crate::tree::{InodeId, Kind, Tree};

impl Tree {
    /// The tree as text: kind, mode, owner, time, path and what the kind adds, one name a line, in walk order.
    ///
    /// Names of one inode show the same `inode=` number, given in order of appearance.
    pub fn dump(&self) -> String {
        let mut names_of = vec![0_u32; self.inode_slots()];
        for (_, id) in self.walk() {
            if let Some(count) = names_of.get_mut(id.index()) {
                *count = count.saturating_add(1);
            }
        }
        let mut groups: Vec<InodeId> = Vec::new();
        let mut text = String::new();
        for (path, id) in self.walk() {
            let inode = self.inode(id);
            let (letter, detail) = describe(&inode.kind);
            write!(text, "{letter} {} {path}{detail}", Shown(&inode.meta))
                .expect("writing to a String cannot fail");
            if names_of.get(id.index()).is_some_and(|&count| count > 1) {
                let group = groups.iter().position(|&known| known == id).unwrap_or_else(|| {
                    groups.push(id);
                    groups.len().saturating_sub(1)
                });
                write!(text, " inode={group}").expect("writing to a String cannot fail");
            }
            for (name, value) in &inode.meta.xattrs {
                write!(text, " {}={}", name.escape_ascii(), value.escape_ascii())
                    .expect("writing to a String cannot fail");
            }
            text.push('\n');
        }
        text
    }
}

struct Shown<'a>(&'a Metadata);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metadata {
            mode,
            uid,
            gid,
            mtime,
            ..
        } = self.0;
        write!(
            f,
            "{mode:04o} {uid}:{gid} {}.{:09}",
            mtime.seconds, mtime.nanoseconds
        )
    }
}

fn describe(kind: &Kind) -> (char, String) {
    match kind {
        Kind::Directory(_) => ('d', String::new()),
        Kind::File(data) => {
            let segments: Vec<String> = data
                .segments
                .iter()
                .map(|s| format!("{}+{}@{}:{}", s.file_offset, s.len, s.region.0, s.region_offset))
                .collect();
            ('f', format!(" {}B [{}]", data.size, segments.join(" ")))
        }
        Kind::Symlink(target) => ('l', format!(" -> {}", target.escape_ascii())),
        Kind::Device {
            kind: DeviceKind::Char,
            major,
            minor,
        } => ('c', format!(" {major}:{minor}")),
        Kind::Device {
            kind: DeviceKind::Block,
            major,
            minor,
        } => ('b', format!(" {major}:{minor}")),
        Kind::Fifo => ('p', String::new()),
        Kind::Socket => ('s', String::new()),
    }
}
