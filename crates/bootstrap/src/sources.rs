//! Where Debian's and Ubuntu's packages come from: lines of `sources.list`, for the tool and for the image.
//!
//! Mirrors that are named stand alone. Where none is, a host of that distribution has some of its own ([`host`]), and
//! `mmdebstrap` knows the public ones, with the updates and the security archive that a suite has: it is asked, so that nobody
//! has to keep a second list of them here.

use std::path::Path;
use std::process::{Command, Stdio};

use firebrick_source::Platform;

use crate::error::BootstrapError;
use crate::host::{self, Mirrors};
use crate::set::{Base, PackageSet};

/// A line of `sources.list`, and where its Release file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) line: String,
    /// The folder of the suite, if the line has one.
    pub(crate) dist: Option<String>,
}

/// The lines for the set, on a host whose `/` is `root`.
pub(crate) fn sources(set: &PackageSet, root: &Path, scratch: &Path) -> Result<Vec<Source>, BootstrapError> {
    if !set.mirrors.is_empty() {
        return Ok(given(set, &options(set, root)));
    }
    if set.snapshot.is_some() {
        return Ok(around(set, &options(set, root), &snapshots(set.base)));
    }
    // Ubuntu keeps other processors elsewhere, so a mirror of this host's need not have them.
    let same = set.base == Base::Debian || set.platform.architecture == Platform::host().architecture;
    let own = host::mirrors(root, set.base).filter(|_| same);
    match own {
        Some(own) if own.security.is_some() || set.base == Base::Ubuntu => {
            Ok(around(set, &options(set, root), &own))
        }
        own => {
            let mut lines = asked(set, scratch)?;
            if let Some(own) = own {
                lines
                    .iter_mut()
                    .filter(|line| !line.suite.ends_with("-security"))
                    .for_each(|line| line.uri.clone_from(&own.main));
            }
            let options = options(set, root);
            Ok(lines.iter().map(|line| line.to_source(&options, set)).collect())
        }
    }
}

/// A place of packages: what a line says beside options and components.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    uri: String,
    suite: String,
}

impl Line {
    fn of(uri: &str, suite: String) -> Line {
        Line {
            uri: uri.to_owned(),
            suite,
        }
    }

    /// Reads one that somebody else has written.
    fn parse(line: &str) -> Option<Line> {
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        Some(Line::of(uri.trim_end_matches('/'), suite.to_owned()))
    }

    /// The folder of the suite. One whose suite ends in a slash has no Release file at the usual place.
    fn dist(&self) -> Option<String> {
        (!self.suite.ends_with('/')).then(|| format!("{}/dists/{}", self.uri, self.suite))
    }

    fn to_source(&self, options: &str, set: &PackageSet) -> Source {
        let components = set.components.join(" ");
        Source {
            line: format!("deb {options}{} {} {components}", self.uri, self.suite),
            dist: self.dist(),
        }
    }
}

/// What a line of ours says in brackets, with a space behind it if that is anything.
fn options(set: &PackageSet, root: &Path) -> String {
    let mut options = Vec::new();
    if set.insecure {
        options.push("trusted=yes".to_owned());
    } else if set.keys.is_none() {
        let keyring = format!("usr/share/keyrings/{}-archive-keyring.gpg", set.base.name());
        if root.join(&keyring).is_file() {
            options.push(format!("signed-by=/{keyring}"));
        }
    }
    if set.snapshot.is_some() {
        options.push("check-valid-until=no".to_owned());
    }
    match options.is_empty() {
        true => String::new(),
        false => format!("[{}] ", options.join(" ")),
    }
}

/// The mirrors that are named, and nothing else.
fn given(set: &PackageSet, options: &str) -> Vec<Source> {
    let source = |mirror: &String| match mirror.starts_with("deb ") {
        true => Source {
            line: mirror.clone(),
            dist: Line::parse(mirror).and_then(|line| line.dist()),
        },
        false => Line::of(&then(mirror, set), set.suite.clone()).to_source(options, set),
    };
    set.mirrors.iter().map(source).collect()
}

/// An archive's address at the time of the set's snapshot, if it is of one.
fn then(uri: &str, set: &PackageSet) -> String {
    let uri = uri.trim_end_matches('/');
    match &set.snapshot {
        Some(snapshot) => format!("{uri}/{}", snapshot.text()),
        None => uri.to_owned(),
    }
}

/// The suite of an archive, and what stands beside it.
fn around(set: &PackageSet, options: &str, mirrors: &Mirrors) -> Vec<Source> {
    let main = then(&mirrors.main, set);
    let mut lines = vec![Line::of(&main, set.suite.clone())];
    // What is always moving has no updates beside it.
    if !["sid", "unstable", "experimental", "devel"].contains(&set.suite.as_str()) {
        lines.push(Line::of(&main, format!("{}-updates", set.suite)));
        let security = mirrors
            .security
            .as_deref()
            .map_or_else(|| main.clone(), |uri| then(uri, set));
        lines.push(Line::of(&security, format!("{}-security", set.suite)));
    }
    lines.iter().map(|line| line.to_source(options, set)).collect()
}

/// Where the distributions keep their past.
fn snapshots(base: Base) -> Mirrors {
    match base {
        Base::Ubuntu => Mirrors {
            main: "http://snapshot.ubuntu.com/ubuntu".to_owned(),
            security: None,
        },
        _ => Mirrors {
            main: "http://snapshot.debian.org/archive/debian".to_owned(),
            security: Some("http://snapshot.debian.org/archive/debian-security".to_owned()),
        },
    }
}

/// The lines that `mmdebstrap` would take for the suite: it writes them before it does anything, and is stopped there.
fn asked(set: &PackageSet, scratch: &Path) -> Result<Vec<Line>, BootstrapError> {
    let output = Command::new("mmdebstrap")
        .args(["--mode=chrootless", "--variant=custom", "--format=null"])
        .arg(format!("--architectures={}", set.architecture()?))
        .arg("--skip=check/signed-by,check/chrootless")
        .arg(r#"--setup-hook=cat "$1/etc/apt/sources.list"; exit 1"#)
        .args(["--", &set.suite, "/dev/null"])
        .env("TMPDIR", scratch)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(BootstrapError::starting("mmdebstrap", "mmdebstrap"))?;
    let said = [output.stdout, output.stderr].concat();
    known(set, &String::from_utf8_lossy(&said))
}

/// The lines in what it said, if they are of the set's distribution: of a suite that it does not know it makes Debian's.
fn known(set: &PackageSet, said: &str) -> Result<Vec<Line>, BootstrapError> {
    let lines: Vec<Line> = said.lines().filter_map(Line::parse).collect();
    let folder = lines.first().and_then(|line| line.uri.rsplit('/').next());
    match folder.is_some_and(|folder| folder.starts_with(set.base.name())) {
        true => Ok(lines),
        false => Err(BootstrapError::NoMirror {
            base: set.base,
            suite: set.suite.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn texts(set: &PackageSet, root: &Path) -> Vec<String> {
        let found = sources(set, root, Path::new("/nonexistent")).unwrap();
        found.into_iter().map(|source| source.line).collect()
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_lines_of_the_tool_are_taken_if_they_are_of_the_distribution() {
        let said = "I: using /tmp/mmdebstrap.x as tempdir\n\
                    deb http://mirror.example/debian bookworm main\n\
                    deb [signed-by=/k.gpg] http://mirror.example/debian-security/ bookworm-security main\n\
                    E: command failed: cat\n";
        let debian = PackageSet::new(Base::Debian);
        let lines = known(&debian, said).unwrap();
        assert_eq!(
            lines[1],
            Line::of(
                "http://mirror.example/debian-security",
                "bookworm-security".to_owned()
            )
        );
        assert_eq!(lines.len(), 2);
        for (base, said) in [
            (Base::Ubuntu, said),
            (Base::Debian, ""),
            (Base::Debian, "deb http://mirror.example/ubuntu noble main\n"),
        ] {
            let refused = known(&PackageSet::new(base), said);
            assert!(matches!(refused, Err(BootstrapError::NoMirror { .. })), "{said}");
        }
        let ports = "deb http://mirror.example/ubuntu-ports noble main\n";
        assert!(known(&PackageSet::new(Base::Ubuntu), ports).is_ok());
    }

    #[test]
    fn a_snapshot_has_updates_and_says_who_signs() {
        let signed = root(&[("usr/share/keyrings/debian-archive-keyring.gpg", "k")]);
        let then = PackageSet {
            snapshot: Some("20250520".parse().unwrap()),
            ..PackageSet::new(Base::Debian)
        };
        let options = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no]";
        let archive = "http://snapshot.debian.org/archive";
        assert_eq!(
            texts(&then, signed.path()),
            [
                format!("deb {options} {archive}/debian/20250520T000000Z bookworm main"),
                format!("deb {options} {archive}/debian/20250520T000000Z bookworm-updates main"),
                format!("deb {options} {archive}/debian-security/20250520T000000Z bookworm-security main"),
            ]
        );
        let sid = PackageSet {
            suite: "sid".to_owned(),
            ..then.clone()
        };
        assert_eq!(texts(&sid, root(&[]).path()).len(), 1);
        let ubuntu = PackageSet {
            suite: "noble".to_owned(),
            base: Base::Ubuntu,
            ..then
        };
        assert_eq!(
            texts(&ubuntu, root(&[]).path())[2],
            "deb [check-valid-until=no] http://snapshot.ubuntu.com/ubuntu/20250520T000000Z noble-security main"
        );
    }

    #[test]
    fn the_hosts_own_mirror_is_taken_for_any_suite() {
        let host = root(&[
            ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n"),
            (
                "etc/apt/sources.list",
                "deb http://near.example/debian bookworm main\ndeb http://near.example/security bookworm-security main\n",
            ),
        ]);
        let trixie = PackageSet {
            suite: "trixie".to_owned(),
            ..PackageSet::new(Base::Debian)
        };
        assert_eq!(
            texts(&trixie, host.path()),
            [
                "deb http://near.example/debian trixie main",
                "deb http://near.example/debian trixie-updates main",
                "deb http://near.example/security trixie-security main",
            ]
        );
    }

    #[test]
    fn given_mirrors_stand_alone() {
        let bare = root(&[]);
        let set = PackageSet {
            mirrors: vec![
                "http://x/debian/".to_owned(),
                "deb [signed-by=/k.gpg] http://y/ bookworm-security main".to_owned(),
                "deb http://z/flat ./".to_owned(),
            ],
            insecure: true,
            ..PackageSet::new(Base::Debian)
        };
        let found = sources(&set, bare.path(), bare.path()).unwrap();
        assert_eq!(found[0].line, "deb [trusted=yes] http://x/debian bookworm main");
        let dists: Vec<_> = found.into_iter().map(|source| source.dist).collect();
        assert_eq!(
            dists,
            [
                Some("http://x/debian/dists/bookworm".to_owned()),
                Some("http://y/dists/bookworm-security".to_owned()),
                None
            ]
        );
    }
}
