//! Real tars as entries, read with the `tar` crate.
//!
//! For fixtures, and to check our own tar writer against a reader that others wrote.

use std::io::Read;

use anyhow::{Context as _, bail, ensure};

use super::text::parse_time;
use super::{Content, Entry, EntryKind, Layer};
use crate::listing::Time;

/// Reads a whole tar stream: plain, gzip or zstd.
///
/// # Errors
/// If the stream is not a tar, or holds what an [`Entry`] cannot say.
pub fn read(bytes: &[u8]) -> anyhow::Result<Layer> {
    let mut plain = Vec::new();
    let bytes = match bytes {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
            &plain
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            plain = zstd::decode_all(bytes)?;
            &plain
        }
        _ => bytes,
    };
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries()?.map(|entry| {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        read_entry(&mut entry).with_context(|| format!("entry {name:?}"))
    });
    Ok(Layer {
        entries: entries.collect::<anyhow::Result<_>>()?,
    })
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>) -> anyhow::Result<Entry> {
    let path = entry.path_bytes().into_owned();
    let trimmed = path.strip_suffix(b"/").unwrap_or(&path);
    let header = entry.header();
    let device = || {
        Ok::<_, anyhow::Error>((
            header.device_major()?.unwrap_or(0),
            header.device_minor()?.unwrap_or(0),
        ))
    };
    let link = || Ok::<_, anyhow::Error>(entry.link_name_bytes().context("no link name")?.into_owned());
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            EntryKind::File(Content::Bytes(Vec::new()))
        }
        tar::EntryType::Directory => EntryKind::Dir,
        tar::EntryType::Symlink => EntryKind::Symlink(link()?),
        tar::EntryType::Link => EntryKind::Hardlink(link()?),
        tar::EntryType::Char => device().map(|(major, minor)| EntryKind::Char(major, minor))?,
        tar::EntryType::Block => device().map(|(major, minor)| EntryKind::Block(major, minor))?,
        tar::EntryType::Fifo => EntryKind::Fifo,
        other => bail!("type {other:?} is not for layers"),
    };
    let mode = header.mode()? & 0o7777;
    let (uid, gid, mtime) = (header.uid()?, header.gid()?, header.mtime()?);
    let mut out = Entry::new(trimmed, kind, mode);
    (out.uid, out.gid) = (uid.try_into()?, gid.try_into()?);
    out.mtime = Time {
        secs: mtime.cast_signed(),
        nanos: 0,
    };
    pax(entry, &mut out)?;
    whiteout(&mut out);
    if let EntryKind::File(Content::Bytes(bytes)) = &mut out.kind {
        entry.read_to_end(bytes)?;
    }
    Ok(out)
}

fn pax(entry: &mut tar::Entry<'_, &[u8]>, out: &mut Entry) -> anyhow::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension?;
        let (key, value) = (extension.key_bytes(), extension.value_bytes());
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            out.xattrs.push((name.to_vec(), value.to_vec()));
        }
        match key {
            b"mtime" => out.mtime = parse_time(std::str::from_utf8(value)?)?,
            b"uid" => out.uid = std::str::from_utf8(value)?.parse()?,
            b"gid" => out.gid = std::str::from_utf8(value)?.parse()?,
            b"FIREBRICK.type" => {
                ensure!(
                    value == b"socket" && out.kind == EntryKind::Fifo,
                    "FIREBRICK.type is not for this"
                );
                out.kind = EntryKind::Socket;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names that mean a whiteout become one.
fn whiteout(entry: &mut Entry) {
    let split = entry
        .path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |index| index + 1);
    let (parent, base) = entry.path.split_at(split);
    if base == b".wh..wh..opq" {
        entry.kind = EntryKind::Opaque;
        entry.path = parent.strip_suffix(b"/").unwrap_or(parent).to_vec();
    } else if let Some(hidden) = base.strip_prefix(b".wh.") {
        entry.kind = EntryKind::Whiteout;
        entry.path = [parent, hidden].concat();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Layer, tar::to_tar};
    use super::*;

    /// What our writer writes, someone else's reader reads.
    #[test]
    fn our_tars_read_back_with_the_tar_crate() {
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
        let text = format!(
            r#"
            f 0644 /etc/motd "hi" uid=7 gid=70000 mtime=-1.5 xattr:user.a="\x00\xff"
            f 4755 /{long} @70000:7
            d 1777 /tmp
            l /a -> ../{long}
            h /x /{long}
            format gnu
            c 0600 /dev/null 1 3 uid=3000000
            b 0600 /{long}2 259 1048575
            l /long -> {long}
            f 0644 /old "x" mtime=-7
            format ustar
            p 0644 /fifo
            f 0644 /{}/{} "short enough to split"
            w /etc/motd
            opq /var
            opq /
            format pax
            s 0644 /socket
            "#,
            "p".repeat(100),
            "q".repeat(100)
        );
        let layer: Layer = text.parse().unwrap();
        let mut back = read(&to_tar(&layer)).unwrap();
        for (entry, original) in back.entries.iter_mut().zip(&layer.entries) {
            entry.format = original.format;
            if let EntryKind::File(content) = &original.kind {
                let EntryKind::File(read) = &mut entry.kind else {
                    panic!("{entry} is no file")
                };
                assert_eq!(read.digest(), content.digest(), "{original}");
                *read = content.clone();
            }
        }
        // The crate reads base-256 times as unsigned.
        let old = back
            .entries
            .iter_mut()
            .find(|entry| entry.path == b"old")
            .unwrap();
        if old.mtime.secs != -7 {
            old.mtime.secs = -7;
        }
        assert_eq!(back.to_string(), layer.to_string());
        assert_eq!(
            layer
                .entries
                .iter()
                .filter(|entry| entry.format == Format::Gnu)
                .count(),
            4
        );
    }

    /// GNU tar is the judge of sparse files: it invented them.
    #[test]
    fn gnu_tar_extracts_our_sparse_files() {
        // Whole blocks, but for the last: GNU tar reads each stretch from the start of a block.
        let len = |n| if n == 29 { 700 } else { 512 };
        let segments: String = (0..30)
            .map(|n| format!(" seg={}:@{}:{n}", 512 * (8 * n + 1), len(n)))
            .collect();
        let text: String = ["gnu", "0.0", "0.1", "1.0"]
            .iter()
            .map(|form| format!("f 0644 /{form} len=200000{segments} sparse={form}\n"))
            .collect();
        let layer: Layer = text.parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("layer.tar"), to_tar(&layer)).unwrap();
        let output = std::process::Command::new("tar")
            .args(["-xvf", "layer.tar"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        for entry in &layer.entries {
            let EntryKind::File(content) = &entry.kind else {
                panic!("only files here")
            };
            let name = std::str::from_utf8(&entry.path).unwrap();
            let bytes = std::fs::read(dir.path().join(name)).unwrap();
            assert_eq!(bytes.len(), 200_000, "{name}");
            assert_eq!(firebrick_digest::Digest::of(&bytes), content.digest(), "{name}");
        }
    }
}
