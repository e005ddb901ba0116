//! The text form of layers: one entry a line, kinds and modes first, as `ls` would.
//!
//! ```text
//! # a comment; blank lines are skipped
//! f 0644 /etc/motd "hi\n"             a file with this content; no content: empty
//! f 0644 /big @1048576:7              a file of 1 MiB generated from seed 7
//! f 0644 /s len=9000 seg=4096:"data" sparse=gnu      holes around data (gnu, 0.0, 0.1, 1.0)
//! d 0755 /x                           a directory
//! l /a -> target                      a symbolic link
//! h /a /b                             a hard link: /a becomes one more name of /b
//! c 0600 /dev/x 1 3                   a character device (b: a block device)
//! p 0644 /fifo                        a named pipe (s: a socket)
//! w /etc/motd                         a whiteout of /etc/motd
//! opq /var                            an opaque whiteout in /var
//! format gnu                          the entries from here on are GNU (pax, ustar)
//! ```
//!
//! Attributes follow: `uid=1 gid=2 mtime=-5.25 xattr:user.k=v acl=u::rwx,u:7:r--,g::r-x,m::r-x,o::---` (`dacl=` is a
//! directory's default ACL), `libarchive` (xattrs in libarchive's form), `size=N` (a header that lies).
//! One leading slash is dropped, so that `/etc` stands in the tar as `etc`; `//etc` gives an absolute name, and a path
//! without a slash in front stands as it is (`../x`, `./x`). Any token may hold `\n`, `\t`, `\\`, `\"`, `\xHH`
//! (`\x20` for a space); quotes keep spaces together.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

use super::content::SparseForm;
use super::{Content, DEFAULT_MTIME, Entry, EntryKind, Format, Layer};
use crate::acl;
use crate::listing::{Time, escape};

impl FromStr for Layer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Layer> {
        let mut layer = Layer::default();
        let mut format = Format::Pax;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let context = || format!("line {}: {line}", index + 1);
            if let Some(name) = line.strip_prefix("format ") {
                format = parse_format(name.trim()).with_context(context)?;
                continue;
            }
            let mut entry = parse_entry(line).with_context(context)?;
            entry.format = format;
            layer.entries.push(entry);
        }
        Ok(layer)
    }
}

/// Parses several layers at once, lowest first.
///
/// # Panics
/// If a text is not a layer: the test is wrong.
pub fn layers(texts: &[&str]) -> Vec<Layer> {
    texts
        .iter()
        .map(|text| text.parse().expect("the test's layers are well-formed"))
        .collect()
}

/// Seven layers that meet each other in everything, large enough that threads really run beside each other.
pub fn several_layers() -> Vec<Layer> {
    let text = |n: u64| {
        let files: String = (0..60)
            .map(|f| {
                let (folder, len, seed) = (f % 7, f * 9001 * (n + 1) % 60_000, f + n);
                format!("f 0644 /d{folder}/f{f} @{len}:{seed} xattr:user.n={n}\n")
            })
            .collect();
        let hidden = n.wrapping_sub(3);
        format!("{files}f 0644 /layer-{n} @900000:{n}\nh /hard-{n} /layer-{n}\nw /layer-{hidden}\n")
    };
    let texts: Vec<String> = (0..7).map(text).collect();
    layers(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn parse_format(name: &str) -> anyhow::Result<Format> {
    Ok(match name {
        "pax" => Format::Pax,
        "gnu" => Format::Gnu,
        "ustar" => Format::Ustar,
        _ => bail!("no such format: {name}"),
    })
}

/// Splits at spaces outside quotes; the tokens keep their escapes and quotes.
fn split(line: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let (mut start, mut quoted, mut escaped) = (None, false, false);
    for (index, byte) in line.bytes().enumerate() {
        if byte == b' ' && !quoted && !escaped {
            if let Some(from) = start.take() {
                tokens.push(&line[from..index]);
            }
            continue;
        }
        start.get_or_insert(index);
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
    }
    tokens.extend(start.map(|from| &line[from..]));
    tokens
}

/// Resolves the escapes of a token and drops its quotes.
fn unescape(token: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = token.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {}
            b'\\' => match bytes.next().context("a backslash ends the token")? {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'x' => {
                    let hex = [bytes.next(), bytes.next()].map(|digit| char::from(digit.unwrap_or(b'?')));
                    let value = u8::from_str_radix(&String::from_iter(hex), 16);
                    out.push(value.context("\\x wants two hex digits")?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

/// A path as it stands in the tar: without its first slash.
fn path(token: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = unescape(token)?;
    if bytes.first() == Some(&b'/') {
        bytes.remove(0);
    }
    Ok(bytes)
}

fn parse_entry(line: &str) -> anyhow::Result<Entry> {
    let tokens = split(line);
    let mut tokens = tokens.as_slice().iter().copied().peekable();
    let mut next = |what: &'static str| tokens.next().context(what);
    let word = next("an entry")?;
    let mode = match word {
        "f" | "d" | "c" | "b" | "p" | "s" => u32::from_str_radix(next("a mode")?, 8).context("the mode")?,
        "l" => 0o777,
        _ => 0o644,
    };
    let name = path(next("a path")?)?;
    let kind = match word {
        "f" => EntryKind::File(Content::Bytes(Vec::new())),
        "d" => EntryKind::Dir,
        "l" => {
            ensure!(next("-> and a target")? == "->", "expected l PATH -> TARGET");
            EntryKind::Symlink(unescape(next("a target")?)?)
        }
        "h" => EntryKind::Hardlink(path(next("a target")?)?),
        "c" => EntryKind::Char(next("a major number")?.parse()?, next("a minor number")?.parse()?),
        "b" => EntryKind::Block(next("a major number")?.parse()?, next("a minor number")?.parse()?),
        "p" => EntryKind::Fifo,
        "s" => EntryKind::Socket,
        "w" => EntryKind::Whiteout,
        "opq" => EntryKind::Opaque,
        _ => bail!("no such kind of entry: {word}"),
    };
    let mut entry = Entry::new(&name, kind, mode);
    for token in tokens {
        attribute(&mut entry, token).with_context(|| format!("attribute {token}"))?;
    }
    Ok(entry)
}

fn attribute(entry: &mut Entry, token: &str) -> anyhow::Result<()> {
    if let (EntryKind::File(content), Some(b'"' | b'@')) = (&mut entry.kind, token.bytes().next()) {
        *content = parse_content(token)?;
        return Ok(());
    }
    if token == "libarchive" {
        entry.libarchive = true;
        return Ok(());
    }
    let (key, value) = token.split_once('=').context("expected key=value")?;
    match key {
        "uid" => entry.uid = value.parse()?,
        "gid" => entry.gid = value.parse()?,
        "mtime" => entry.mtime = parse_time(value)?,
        "size" => entry.lie = Some(value.parse()?),
        "acl" => entry
            .xattrs
            .push((b"system.posix_acl_access".to_vec(), acl::to_xattr(value)?)),
        "dacl" => entry
            .xattrs
            .push((b"system.posix_acl_default".to_vec(), acl::to_xattr(value)?)),
        "len" | "seg" | "sparse" => sparse_attribute(entry, key, value)?,
        _ => {
            let name = key.strip_prefix("xattr:").context("no such attribute")?;
            entry.xattrs.push((unescape(name)?, unescape(value)?));
        }
    }
    Ok(())
}

fn sparse_attribute(entry: &mut Entry, key: &str, value: &str) -> anyhow::Result<()> {
    let EntryKind::File(content) = &mut entry.kind else {
        bail!("only files have content")
    };
    if !matches!(content, Content::Sparse { .. }) {
        *content = Content::Sparse {
            len: 0,
            form: SparseForm::Pax10,
            segments: Vec::new(),
        };
    }
    let Content::Sparse { len, form, segments } = content else {
        unreachable!("just made sparse")
    };
    match key {
        "len" => *len = value.parse()?,
        "seg" => {
            let (offset, data) = value.split_once(':').context("expected seg=OFFSET:CONTENT")?;
            segments.push((offset.parse()?, parse_content(data)?));
        }
        _ => *form = parse_sparse_form(value)?,
    }
    Ok(())
}

fn parse_sparse_form(name: &str) -> anyhow::Result<SparseForm> {
    Ok(match name {
        "gnu" => SparseForm::Gnu,
        "0.0" => SparseForm::Pax00,
        "0.1" => SparseForm::Pax01,
        "1.0" => SparseForm::Pax10,
        _ => bail!("no such sparse form: {name}"),
    })
}

fn parse_content(token: &str) -> anyhow::Result<Content> {
    let Some(generator) = token.strip_prefix('@') else {
        return Ok(Content::Bytes(unescape(token)?));
    };
    let (len, seed) = generator.split_once(':').context("expected @SIZE:SEED")?;
    Ok(Content::Generated {
        len: len.parse()?,
        seed: seed.parse()?,
    })
}

/// Parses seconds since 1970 with up to nine decimals, such as `-1.5` (half a second before the second before 1970).
pub(crate) fn parse_time(text: &str) -> anyhow::Result<Time> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse()?;
    let nanos: u32 = format!("{decimals:0<9}").get(..9).context("decimals")?.parse()?;
    Ok(if text.starts_with('-') && nanos > 0 {
        Time {
            secs: secs - 1,
            nanos: 1_000_000_000 - nanos,
        }
    } else {
        Time { secs, nanos }
    })
}

/// The inverse of [`parse_time`].
pub(crate) fn format_time(time: Time) -> String {
    let (sign, secs, nanos) = if time.secs < 0 && time.nanos > 0 {
        ("-", -(time.secs + 1), 1_000_000_000 - time.nanos)
    } else {
        ("", time.secs, time.nanos)
    };
    if nanos == 0 {
        format!("{sign}{secs}")
    } else {
        format!("{sign}{secs}.{nanos:09}")
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Bytes(bytes) => write!(f, "\"{}\"", escape(bytes)),
            Content::Generated { len, seed } => write!(f, "@{len}:{seed}"),
            Content::Sparse { len, form, segments } => {
                let form = match form {
                    SparseForm::Gnu => "gnu",
                    SparseForm::Pax00 => "0.0",
                    SparseForm::Pax01 => "0.1",
                    SparseForm::Pax10 => "1.0",
                };
                write!(f, "len={len} sparse={form}")?;
                segments
                    .iter()
                    .try_for_each(|(offset, data)| write!(f, " seg={offset}:{data}"))
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mode) = (escape(&self.path), self.mode);
        match &self.kind {
            EntryKind::File(content) => write!(f, "f {mode:04o} /{name} {content}")?,
            EntryKind::Dir => write!(f, "d {mode:04o} /{name}")?,
            EntryKind::Symlink(target) => write!(f, "l /{name} -> {}", escape(target))?,
            EntryKind::Hardlink(target) => write!(f, "h /{name} /{}", escape(target))?,
            EntryKind::Char(major, minor) => write!(f, "c {mode:04o} /{name} {major} {minor}")?,
            EntryKind::Block(major, minor) => write!(f, "b {mode:04o} /{name} {major} {minor}")?,
            EntryKind::Fifo => write!(f, "p {mode:04o} /{name}")?,
            EntryKind::Socket => write!(f, "s {mode:04o} /{name}")?,
            EntryKind::Whiteout => write!(f, "w /{name}")?,
            EntryKind::Opaque => write!(f, "opq /{name}")?,
        }
        if self.uid != 0 {
            write!(f, " uid={}", self.uid)?;
        }
        if self.gid != 0 {
            write!(f, " gid={}", self.gid)?;
        }
        if self.mtime != DEFAULT_MTIME {
            write!(f, " mtime={}", format_time(self.mtime))?;
        }
        for (key, value) in &self.xattrs {
            write!(
                f,
                " xattr:{}=\"{}\"",
                escape(key).replace('=', "\\x3d"),
                escape(value)
            )?;
        }
        if self.libarchive {
            write!(f, " libarchive")?;
        }
        self.lie.map_or(Ok(()), |size| write!(f, " size={size}"))
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut format = Format::Pax;
        for entry in &self.entries {
            if entry.format != format {
                format = entry.format;
                writeln!(f, "format {}", format!("{format:?}").to_lowercase())?;
            }
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_reads_back_as_written() {
        let text = r#"
            f 0644 /etc/motd "hi \"there\"\n" uid=7 gid=70000 mtime=-1.5
            f 4755 /big @1048576:7 xattr:user.x\x3dy="a b=c"
            f 0600 /s len=9000 seg=4096:"data" seg=8000:@10:3 sparse=gnu
            d 1777 /tmp acl=u::rwx,u:7:r--,g::r-x,m::r-x,o::---
            l /a -> ../b\x20c
            h /x /y libarchive xattr:user.k=v
            format gnu
            c 0600 /dev/null 1 3
            b 0600 /dev/vda 253 0
            format ustar
            p 0644 /fifo
            s 0644 /socket size=12
            w /etc/motd
            opq /var
            d 0755 ../out
            d 0755 //absolute
            f 0644 /not-utf8-\xff\xfe
        "#;
        let layer: Layer = text.parse().unwrap();
        assert_eq!(layer.entries.len(), 15);
        assert_eq!(
            layer.entries[0].mtime,
            Time {
                secs: -2,
                nanos: 500_000_000
            }
        );
        assert_eq!(layer.entries[14].path, b"not-utf8-\xff\xfe");
        assert_eq!(layer.entries[13].path, b"/absolute");
        assert_eq!(
            layer.to_string().parse::<Layer>().unwrap().to_string(),
            layer.to_string()
        );
        let mut again = layer.to_string().parse::<Layer>().unwrap();
        again.entries[12].path = b"../out".to_vec(); // written with one slash in front
        assert_eq!(again, layer);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = "d 0755 /a\nq /b".parse::<Layer>().unwrap_err();
        assert_eq!(format!("{error:#}"), "line 2: q /b: no such kind of entry: q");
    }
}
