//! Alpine, installed by its own `apk`.
//!
//! `apk` comes with the *minirootfs*, Alpine's smallest system: it, the libraries that it is linked to and the keys that it
//! trusts. The set is that system and the packages on top. `apk` runs beside the new root, not in it, so that it finds this
//! host's resolver and certificates; the scripts of packages run inside.
//!
//! A namespace of users, mounts and processes holds all of it, with [`SCRIPT`] as its first process. Root needs no namespace of
//! users.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use firebrick_layer::{Limits, RegionSink, ScanSummary, decompress, detect, scan};
use firebrick_tree::{EntryKind, RegionIndex};
use rustix::process::Signal;

use crate::debian::file_error;
use crate::error::BootstrapError;
use crate::ids::Mode;
use crate::prepare::Options;
use crate::run::{Event, Spec};
use crate::set::PackageSet;

/// The mirror that everybody knows.
const MIRROR: &str = "https://dl-cdn.alpinelinux.org/alpine";
/// Longest list of releases, and longest minirootfs, in bytes.
const LIST_MAX: u64 = 1 << 20;
const MINIROOTFS_MAX: u64 = 256 << 20;

/// Words: minirootfs, processor, time, folder of keys or nothing, "untrusted" or nothing, then packages. It works in the folder
/// where it is started, in which `repositories` lies; the tar goes to stdout, and everything that is said to stderr.
const SCRIPT: &str = r#"
set -eu
exec 3>&1 1>&2
minirootfs=$1 arch=$2 time=$3 keys=$4 untrusted=$5
shift 5
umask 022
here=$(pwd)
root=$here/root tools=$here/tools
release() {
    for borrowed in dev/full dev/null dev/random dev/urandom dev/zero proc; do
        ! mountpoint -q "$root/$borrowed" || umount "$root/$borrowed"
    done
}
trap 'release; rm -rf --one-file-system "$root" "$tools"' EXIT
mkdir "$root" "$tools"
tar --extract --numeric-owner --preserve-permissions --file "$minirootfs" --directory "$root"
if [ $# -gt 0 ]; then
    tar --extract --no-same-owner --file "$minirootfs" --directory "$tools"
    if [ -n "$keys" ]; then
        cp "$keys"/*.pub "$tools/etc/apk/keys/"
        cp "$keys"/*.pub "$root/etc/apk/keys/"
    fi
    cp repositories "$root/etc/apk/repositories"
    # Scripts of packages want devices, which a namespace may borrow but not make.
    for device in full null random urandom zero; do
        : > "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -t proc proc "$root/proc" || echo "W: scripts of packages see no /proc"
    [ -e /etc/ssl/cert.pem ] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
    [ -e "${SSL_CERT_FILE-/}" ] || export SSL_CERT_FILE="$tools/etc/ssl/cert.pem"
    set -- "$tools"/lib/ld-musl-*.so.1 --library-path "$tools/lib:$tools/usr/lib" "$tools/sbin/apk" \
        --root "$root" --arch "$arch" --keys-dir "$tools/etc/apk/keys" --repositories-file "$here/repositories" \
        --no-cache --no-progress ${untrusted:+--allow-untrusted} add -- "$@"
    echo "I: installing packages"
    "$@"
    release
    for device in full null random urandom zero; do
        rm -f "$root/dev/$device"
    done
fi
echo "I: creating tarball"
tar --create --sort=name --numeric-owner --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
    --xattrs --xattrs-include=user.* --xattrs-include=security.capability \
    --mtime="@$time" --clamp-mtime --directory "$root" --file - . >&3
"#;

/// What installs the set, and the time that it is given.
pub(crate) fn spec(set: &PackageSet, mode: Mode, options: &Options) -> Result<(Spec, i64), BootstrapError> {
    let architecture = set.architecture()?;
    let mirrors = match set.mirrors.is_empty() {
        true => vec![MIRROR.to_owned()],
        false => set.mirrors.clone(),
    };
    let branches: Vec<String> = mirrors
        .iter()
        .map(|mirror| format!("{}/{}", mirror.trim_end_matches('/'), set.suite))
        .collect();
    let scratch = tempfile::Builder::new()
        .prefix("firebrick-create.")
        .tempdir_in(&options.temp_dir)
        .map_err(file_error("make a folder in", &options.temp_dir))?;
    let minirootfs = match &set.minirootfs {
        Some(path) => std::path::absolute(path).map_err(file_error("find", path))?,
        None => fetch(&branches[0], architecture, set, scratch.path(), options)?,
    };
    let newest = examine(&minirootfs)?;
    let seconds = options.time.unwrap_or(newest);
    let keys = match &set.keys {
        Some(keys) => std::path::absolute(keys).map_err(file_error("find", keys))?,
        None => PathBuf::new(),
    };
    if !keys.as_os_str().is_empty() {
        fs::read_dir(&keys).map_err(file_error("read the folder of keys", &keys))?;
    }
    let repositories: String = branches
        .iter()
        .flat_map(|branch| {
            set.components
                .iter()
                .map(move |part| format!("{branch}/{part}\n"))
        })
        .collect();
    let file = scratch.path().join("repositories");
    fs::write(&file, repositories).map_err(file_error("write", &file))?;

    let mut command = namespace(mode, true);
    command.extend(["sh", "-c", SCRIPT, "apk"].map(Into::into));
    command.extend([
        minirootfs.into(),
        architecture.into(),
        seconds.to_string().into(),
        keys.into(),
        if set.insecure { "untrusted" } else { "" }.into(),
    ]);
    command.extend(set.packages.iter().map(Into::into));
    let mut remove = match mode {
        Mode::Root => Vec::new(),
        Mode::Unshare => namespace(mode, false),
    };
    remove.extend(["rm", "-rf"].map(Into::into));
    let spec = Spec {
        program: "apk",
        task: format!("install {}", set.title()),
        command,
        starter: ("unshare", "util-linux"),
        env: Vec::new(),
        remove,
        // All of it is in namespaces that end with it, and the first process of one does not hear gentler signals.
        signals: &[Signal::KILL],
        scratch,
        hear,
    };
    Ok((spec, seconds))
}

/// What starts a program with all users of a system, and with mounts and processes of its own if it shall work there.
fn namespace(mode: Mode, works: bool) -> Vec<OsString> {
    let mut words = vec!["unshare"];
    if mode == Mode::Unshare {
        words.extend(["--user", "--map-root-user", "--map-auto"]);
    }
    if works {
        words.extend(["--mount", "--pid", "--fork", "--kill-child=KILL"]);
    }
    words.push("--");
    words.into_iter().map(Into::into).collect()
}

/// Fetches the newest minirootfs of the branch, if it is not in the cache.
///
/// The mirror names its file and its digest, and nobody signs either; so the mirror itself must prove who it is.
fn fetch(
    branch: &str,
    architecture: &'static str,
    set: &PackageSet,
    scratch: &Path,
    options: &Options,
) -> Result<PathBuf, BootstrapError> {
    let folder = format!("{branch}/releases/{architecture}");
    let mut source = options.source.clone();
    let host = branch.split("://").nth(1).and_then(|rest| rest.split('/').next());
    if set.insecure {
        source.registry.plain_http.extend(host.map(str::to_owned));
    }
    let failed = |url: &str| {
        let url = url.to_owned();
        move |source| BootstrapError::Fetch {
            url,
            source: Box::new(source),
        }
    };
    (options.events)(Event::Stage(format!("looking for {}", set.title())));
    let url = format!("{folder}/latest-releases.yaml");
    let list = scratch.join("latest-releases.yaml");
    firebrick_source::fetch_unverified(&url, &list, LIST_MAX, &source).map_err(failed(&url))?;
    let text = fs::read(&list).map_err(file_error("read", &list))?;
    let (name, digest) =
        named(&String::from_utf8_lossy(&text)).ok_or(BootstrapError::NoMinirootfs { url, architecture })?;
    fs::create_dir_all(&options.cache).map_err(file_error("make the folder", &options.cache))?;
    let file = options.cache.join(format!("{}.tar.gz", digest.hex()));
    let url = format!("{folder}/{name}");
    firebrick_source::fetch_file(&url, digest, &file, MINIROOTFS_MAX, &source).map_err(failed(&url))?;
    Ok(file)
}

/// The minirootfs in a list of releases: its file's name and digest. The list is YAML of one shape: items that begin with `-`,
/// and one `key: value` a line.
fn named(list: &str) -> Option<(String, Digest)> {
    let item = |item: &str| {
        let value = |key: &str| {
            item.lines().find_map(|line| {
                let value = line
                    .trim_start_matches(['-', ' '])
                    .strip_prefix(key)?
                    .strip_prefix(':')?;
                Some(value.trim().trim_matches('"').to_owned())
            })
        };
        if value("flavor")? != "alpine-minirootfs" {
            return None;
        }
        let file = value("file").filter(|file| !file.contains('/') && !file.starts_with('.'))?;
        Some((file, format!("sha256:{}", value("sha256")?).parse().ok()?))
    };
    // Every item starts with a line that is nothing but a dash, or has a dash before its first key.
    let mut items = vec![String::new()];
    for line in list.lines() {
        if line.starts_with('-') {
            items.push(String::new());
        }
        if let Some(last) = items.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    items.iter().find_map(|text| item(text))
}

/// Reads the minirootfs through: that it is one, and the time of its newest file.
fn examine(path: &Path) -> Result<i64, BootstrapError> {
    let open = file_error("open", path);
    let file = fs::File::open(path).map_err(&open)?;
    let (compression, file) = detect(file).map_err(&open)?;
    let tar = BufReader::new(decompress(compression, BufReader::new(file)).map_err(&open)?);
    let limits = Limits::default();
    let scanned = scan(tar, RegionIndex(0), &mut Nowhere, &limits, ScanSummary::default());
    let (index, _) = scanned.map_err(|source| BootstrapError::MinirootfsTar {
        path: path.to_owned(),
        source,
    })?;
    let has = |prefix: &str| {
        index
            .entries
            .iter()
            .any(|entry| entry.path.to_string().trim_start_matches('/').starts_with(prefix))
    };
    let wrong = |problem| BootstrapError::Minirootfs {
        path: path.to_owned(),
        problem,
    };
    for (prefix, problem) in [
        ("sbin/apk", "it has no /sbin/apk"),
        ("lib/ld-musl-", "it has no /lib/ld-musl"),
        ("etc/apk/keys/", "it has no keys in /etc/apk/keys"),
    ] {
        let linked = |entry: &firebrick_tree::Entry| {
            let top = prefix.split('/').next().unwrap_or_default();
            matches!(entry.kind, EntryKind::Symlink(_))
                && entry.path.to_string().trim_start_matches('/') == top
        };
        let below_usr = || index.entries.iter().any(linked) && has(&format!("usr/{prefix}"));
        if !has(prefix) && !below_usr() {
            return Err(wrong(problem));
        }
    }
    let times = index.entries.iter().map(|entry| entry.meta.mtime.seconds);
    times.max().ok_or_else(|| wrong("it is empty"))
}

/// File contents are not wanted.
struct Nowhere;

impl RegionSink for Nowhere {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn append_zeros(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }
}

/// `I:` begins something, as with `mmdebstrap`; `WARNING:` is apk's.
fn hear(line: &str) -> Event {
    if let Some(stage) = line.strip_prefix("I: ") {
        return Event::Stage(stage.to_owned());
    }
    match line
        .strip_prefix("WARNING: ")
        .or_else(|| line.strip_prefix("W: "))
    {
        Some(warning) => Event::Warning(warning.to_owned()),
        None => Event::Line(line.to_owned()),
    }
}
