//! Writes the planned entries as the tar of a layer.

use std::io;

use firebrick_layer::tar::{Writer, WriterEntry};
use firebrick_tree::{Kind, LayerPath, Metadata, Timestamp, Tree};

use crate::lower::{Lower, LowerKind};
use crate::plan::{Entry, EntryKind};

/// The layer's tar: same entries and time, same bytes. `mtime` is in seconds since 1970.
pub fn to_tar(entries: &[Entry<'_>], mtime: i64) -> Vec<u8> {
    write(entries, mtime).expect("writing to memory cannot fail")
}

fn write(entries: &[Entry<'_>], mtime: i64) -> io::Result<Vec<u8>> {
    let mtime = Timestamp {
        seconds: mtime,
        nanoseconds: 0,
    };
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        let path = match &entry.kind {
            EntryKind::Whiteout => whiteout(&entry.path),
            _ => entry.path.clone(),
        };
        let path =
            LayerPath::parse(&path).expect("our paths are ours and the image's own, which passed before");
        let meta = Metadata {
            mode: entry.mode,
            uid: entry.owner.0,
            gid: entry.owner.1,
            mtime,
            xattrs: entry.xattrs.clone(),
        };
        let content = match &entry.kind {
            EntryKind::Dir => WriterEntry::Directory,
            EntryKind::File(bytes) => WriterEntry::File(bytes),
            EntryKind::Symlink(target) => WriterEntry::Symlink(target),
            EntryKind::Whiteout => WriterEntry::File(b""),
        };
        writer.entry(&path, &meta, content)?;
    }
    writer.finish()
}

/// What stands in a tar for the absence of a path (`.wh.NAME` beside it).
fn whiteout(path: &[u8]) -> Vec<u8> {
    let name_at = path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(name_at);
    [folder, b".wh.", name].concat()
}

impl Lower for Tree {
    fn kind(&self, path: &[u8]) -> Option<LowerKind> {
        let id = self.lookup(&LayerPath::parse(path).ok()?)?;
        Some(match &self.inode(id).kind {
            Kind::Directory(_) => LowerKind::Dir,
            Kind::Symlink(target) => LowerKind::Symlink(target.to_vec()),
            _ => LowerKind::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use firebrick_tree::Xattrs;

    use super::*;

    /// The system's own tar reads what we wrote.
    #[test]
    fn tar_lists_what_was_planned() {
        let entries = [
            Entry {
                path: b"tmp".to_vec(),
                mode: 0o1777,
                owner: (0, 0),
                xattrs: Xattrs::new(),
                kind: EntryKind::Dir,
            },
            Entry {
                path: b"tmp/a".to_vec(),
                mode: 0o644,
                owner: (1000, 10),
                xattrs: Xattrs::new(),
                kind: EntryKind::File(b"hi\n"[..].into()),
            },
            Entry {
                path: b"l".to_vec(),
                mode: 0o777,
                owner: (0, 0),
                xattrs: Xattrs::new(),
                kind: EntryKind::Symlink(b"/tmp/a".to_vec()),
            },
            Entry {
                path: b"usr/share/doc".to_vec(),
                mode: 0,
                owner: (0, 0),
                xattrs: Xattrs::new(),
                kind: EntryKind::Whiteout,
            },
        ];
        let bytes = to_tar(&entries, 86_400);
        assert_eq!(bytes, to_tar(&entries, 86_400));
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            seen.push(format!(
                "{:?} {:?} {:o} {} {} {} {:?} {content:?}",
                header.entry_type(),
                entry.path().unwrap(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                entry.link_name().unwrap(),
            ));
        }
        assert_eq!(
            seen,
            [
                "Directory \"tmp/\" 1777 0 0 86400 None \"\"",
                "Regular \"tmp/a\" 644 1000 10 86400 None \"hi\\n\"",
                "Symlink \"l\" 777 0 0 86400 Some(\"/tmp/a\") \"\"",
                "Regular \"usr/share/.wh.doc\" 0 0 0 86400 None \"\"",
            ]
        );
    }
}
