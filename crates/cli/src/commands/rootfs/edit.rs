//! `firebrick rootfs edit`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use anyhow::Context as _;
use firebrick_ext4::read::{FileType, LastSymlink};
use firebrick_tree::Metadata;

use super::put::Putter;
use crate::edited::{Edited, Owner, Refusal, inside, parse_mode};
use crate::error::write_stdout;
use crate::home::Home;
use crate::images;
use crate::talk::Talk;
use crate::text;

/// Change files of an ext4 image
///
/// Nothing is mounted, and any ext4 will do. The image is copied (at no cost where the filesystem has reflinks), the copy is
/// changed, and takes the image's place when all is done: all changes or none. Whatever the order on the command line, things
/// are removed first, then added, then get modes and owners.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["image", "name"]))]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true)
    .args(["set_hostname", "add", "rm", "chmod", "chown"]))]
pub(crate) struct Args {
    /// The image: a name or a path
    image: Option<OsString>,

    /// The image, by its name
    #[arg(short, long, value_parser = images::parse_name)]
    name: Option<String>,

    /// Remove a file, or a folder with all that is in it; may be repeated
    #[arg(long, value_name = "PATH", help_heading = "Changes")]
    rm: Vec<OsString>,

    /// Put a file or folder of the host into the image, at PATH or into the folder PATH; may be repeated
    ///
    /// It belongs to root and keeps its mode and time. Symbolic links stay links.
    #[arg(long, value_name = "HOST:/PATH", help_heading = "Changes")]
    add: Vec<OsString>,

    /// Write /etc/hostname, and the line of 127.0.1.1 in /etc/hosts if there is one
    #[arg(long, value_name = "NAME", value_parser = parse_hostname, help_heading = "Changes")]
    set_hostname: Option<String>,

    /// Set permissions, in octal; may be repeated
    #[arg(long, value_name = "MODE:PATH", help_heading = "Changes")]
    chmod: Vec<OsString>,

    /// Set owner and group, by number or by name in the image; may be repeated
    #[arg(long, value_name = "USER:GROUP:PATH", help_heading = "Changes")]
    chown: Vec<OsString>,

    /// Write the changed image here, and leave the other as it is
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// A name of one label or more (RFC 1123).
fn parse_hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.len() <= 64 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => {
            Err("a hostname has letters, digits and dashes, with dots between, up to 64 in all".to_owned())
        }
    }
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let image = match (&args.image, &args.name) {
        (Some(image), _) => images::find(home, image)?,
        (None, name) => images::find(home, name.clone().unwrap_or_default().as_ref())?,
    };
    let adds = args.add.iter().map(parse_add).collect::<Result<Vec<_>, _>>()?;
    let chmods = args
        .chmod
        .iter()
        .map(parse_chmod)
        .collect::<Result<Vec<_>, _>>()?;
    let chowns = args
        .chown
        .iter()
        .map(parse_chown)
        .collect::<Result<Vec<_>, _>>()?;
    let mut edited = Edited::open(home, &image, args.output.as_deref(), talk)?;
    for path in &args.rm {
        edited.change(
            || format!("remove {path:?}"),
            |editor| Ok(editor.remove(&inside(path))?),
        )?;
    }
    for (host, path) in &adds {
        let mut putter = Putter::new(&mut edited, None);
        putter
            .put(host, path)
            .with_context(|| format!("cannot put {host:?} into {image:?}; it stays as it was"))?;
    }
    if let Some(name) = &args.set_hostname {
        set_hostname(&mut edited, name)?;
    }
    for (mode, path) in &chmods {
        edited.change(
            || format!("set the mode of {:?}", path.escape_ascii().to_string()),
            |editor| Ok(editor.set_mode(path, *mode)?),
        )?;
    }
    for (owner, path) in &chowns {
        let (uid, gid) = owner.numbers(&edited)?;
        edited.change(
            || format!("set the owner of {:?}", path.escape_ascii().to_string()),
            |editor| Ok(editor.set_owner(path, uid, gid)?),
        )?;
    }
    let output = edited.output.clone();
    let changes = edited.finish()?;
    talk.say(&format!(
        "changed: {} made, {} removed, {} written, {} free",
        changes.made,
        changes.removed,
        text::bytes(changes.written_bytes),
        text::bytes(changes.free_bytes)
    ));
    write_stdout(format!("{}\n", output.display()).as_bytes())
}

fn bad(flag: &'static str, value: &OsString, expected: &'static str) -> Refusal {
    Refusal::BadChange {
        flag,
        value: value.to_string_lossy().into_owned(),
        expected,
    }
}

/// `HOST:/PATH`: the host's path may have colons, but none before a slash.
fn parse_add(value: &OsString) -> Result<(PathBuf, Vec<u8>), Refusal> {
    let bytes = value.as_bytes();
    let at = bytes.windows(2).rposition(|pair| pair == b":/");
    match at.map(|at| bytes.split_at(at)) {
        Some((host, path)) if !host.is_empty() => Ok((
            PathBuf::from(OsString::from_vec(host.to_vec())),
            path[1..].to_vec(),
        )),
        _ => Err(bad("--add", value, "HOST:/PATH, as in --add motd:/etc/motd")),
    }
}

fn parse_chmod(value: &OsString) -> Result<(u16, Vec<u8>), Refusal> {
    let expected = "MODE:PATH, as in --chmod 0755:/usr/bin/tool";
    let bytes = value.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b':');
    let (mode, path) = bytes.split_at(at.ok_or_else(|| bad("--chmod", value, expected))?);
    let mode = parse_mode(&String::from_utf8_lossy(mode)).map_err(|_| bad("--chmod", value, expected))?;
    Ok((mode, inside(std::ffi::OsStr::from_bytes(&path[1..]))))
}

fn parse_chown(value: &OsString) -> Result<(Owner, Vec<u8>), Refusal> {
    let expected = "USER:GROUP:PATH, as in --chown 1000:1000:/home/nex";
    let bytes = value.as_bytes();
    let mut parts = bytes.splitn(3, |byte| *byte == b':');
    let (Some(user), Some(group), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad("--chown", value, expected));
    };
    let owner = format!(
        "{}:{}",
        String::from_utf8_lossy(user),
        String::from_utf8_lossy(group)
    );
    let owner = Owner::parse(&owner).map_err(|_| bad("--chown", value, expected))?;
    Ok((owner, inside(std::ffi::OsStr::from_bytes(path))))
}

fn set_hostname(edited: &mut Edited, name: &str) -> anyhow::Result<()> {
    let mtime = edited.time()?;
    let hosts = edited.text("/etc/hosts")?;
    let changed = hosts.as_deref().and_then(|hosts| with_hostname(hosts, name));
    let files = [
        ("/etc/hostname", Some(format!("{name}\n").into_bytes())),
        ("/etc/hosts", changed),
    ];
    edited.change(
        || "set the hostname".to_owned(),
        |editor| {
            let meta = Metadata {
                mtime,
                ..Metadata::default()
            };
            let etc = editor.find(b"/etc", LastSymlink::Follow)?;
            if etc.is_none_or(|etc| etc.stat().file_type != FileType::Directory) {
                editor.make_directory(b"/etc", &meta)?;
            }
            for (path, content) in files {
                let meta = Metadata {
                    mode: 0o644,
                    ..meta.clone()
                };
                if let Some(bytes) = content {
                    editor.write_file(path.as_bytes(), &meta, bytes.len() as u64, &mut bytes.as_slice())?;
                }
            }
            Ok(())
        },
    )
}

/// `/etc/hosts` with the names of 127.0.1.1, which Debian keeps the hostname at, replaced; `None` where it has no such line.
fn with_hostname(hosts: &[u8], name: &str) -> Option<Vec<u8>> {
    const OWN: &[u8] = b"127.0.1.1";
    let is_own = |line: &[u8]| line.split(u8::is_ascii_whitespace).next() == Some(OWN);
    let lines: Vec<&[u8]> = hosts.split(|byte| *byte == b'\n').collect();
    let at = lines.iter().position(|line| is_own(line))?;
    let own = [OWN, b"\t", name.as_bytes()].concat();
    let lines: Vec<&[u8]> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| if index == at { own.as_slice() } else { *line })
        .collect();
    Some(lines.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        for good in ["box", "a-1.example.org", "7"] {
            assert!(parse_hostname(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", "a b", &"a".repeat(64), "ü"] {
            assert!(parse_hostname(bad).is_err(), "{bad}");
        }
        let hosts = b"127.0.0.1 localhost\n127.0.1.1 old old.local\n::1 localhost\n";
        assert_eq!(
            with_hostname(hosts, "new").unwrap(),
            b"127.0.0.1 localhost\n127.0.1.1\tnew\n::1 localhost\n"
        );
        assert_eq!(with_hostname(b"127.0.0.1 localhost\n", "new"), None);
    }

    #[test]
    fn what_is_added_may_have_colons() {
        let add =
            |text: &str| parse_add(&text.into()).map(|(host, path)| (host, String::from_utf8(path).unwrap()));
        assert_eq!(add("a:b:/etc/x").unwrap(), ("a:b".into(), "/etc/x".to_owned()));
        for bad in ["a", "a:b", ":/x", ""] {
            assert!(add(bad).is_err(), "{bad}");
        }
    }
}
