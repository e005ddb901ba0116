//! `firebrick setup --check`: what is there, and whether it is what the other flags ask for.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;

use firebrick_digest::{Digest, Hasher};
use firebrick_vmm::Arch;
use firebrick_vmm::kernel::{Kernel, Origin};
use firebrick_vmm::release::Release;
use serde::Serialize;
use serde_json::json;

use super::Args;
use crate::error::write_stdout;
use crate::home::Home;
use crate::{host, text};

/// One thing that boots need.
#[derive(Debug, Serialize)]
struct Thing {
    name: &'static str,
    /// Whether it is there, and the one that is asked for.
    ok: bool,
    found: String,
}

impl Thing {
    fn ok(name: &'static str, found: impl Into<String>) -> Thing {
        let (ok, found) = (true, found.into());
        Thing { name, ok, found }
    }

    fn missing(name: &'static str, found: impl Into<String>) -> Thing {
        Thing {
            ok: false,
            ..Thing::ok(name, found)
        }
    }
}

/// A line a thing: `ok` or `missing`, what it is, and what is known of it.
pub(super) fn run(args: &Args, home: &Home) -> anyhow::Result<ExitCode> {
    let mut things = vec![kernel(args, home)];
    let firecracker = firecracker(args, home);
    let is_there = firecracker.as_ref().is_some_and(|thing| thing.ok);
    things.extend(firecracker);
    // It is enough for this host's own processor.
    things.extend(qemu(args, is_there && args.arch() == Arch::HOST));
    let complete = things.iter().all(|thing| thing.ok);
    if args.json {
        let report = json!({ "complete": complete, "things": things });
        write_stdout(&text::json_line(&report))?;
    } else {
        let row = |thing: &Thing| {
            let word = if thing.ok { "ok" } else { "missing" };
            vec![word.to_owned(), thing.name.to_owned(), thing.found.clone()]
        };
        let rows: Vec<Vec<String>> = things.iter().map(row).collect();
        write_stdout(text::table(&rows).as_bytes())?;
    }
    Ok(match complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn kernel(args: &Args, home: &Home) -> Thing {
    const NAME: &str = "kernel";
    let wanted = match args.wanted_origin() {
        Ok(wanted) => wanted,
        Err(error) => return Thing::missing(NAME, error),
    };
    // A file says by itself what processor it is for.
    let arches = match &wanted {
        Some(_) => Arch::ALL.to_vec(),
        None => vec![args.arch()],
    };
    let mut found = Vec::new();
    for arch in arches {
        let kernel = Kernel::default_for(home.data(), arch);
        match kernel.and_then(|kernel| kernel.verify().map(|()| kernel)) {
            Ok(kernel) => {
                let name = host::name_of(&kernel);
                if args.takes(&kernel, wanted.as_ref()) {
                    return Thing::ok(NAME, format!("{name} ({})", kernel.path().display()));
                }
                found.push(format!(
                    "{}: the one that is set up is {name}",
                    args.wanted_kernel()
                ));
            }
            Err(error) if arch == Arch::HOST || wanted.is_none() => found.push(error.to_string()),
            Err(_) => {}
        }
    }
    Thing::missing(NAME, found.join("; "))
}

impl Args {
    /// What the kernel must be made of, where its very bytes are named.
    fn wanted_origin(&self) -> Result<Option<WantedOrigin>, String> {
        let of =
            |path: &Path| digest_of(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        Ok(match (&self.kernel, &self.deb, self.digest) {
            (Some(path), ..) => Some(WantedOrigin::File(of(path)?)),
            (None, Some(path), _) => Some(WantedOrigin::Package(of(path)?)),
            (None, None, Some(digest)) => Some(WantedOrigin::File(digest)),
            (None, None, None) => None,
        })
    }

    fn takes(&self, kernel: &Kernel, wanted: Option<&WantedOrigin>) -> bool {
        match (wanted, &kernel.manifest().origin) {
            (Some(WantedOrigin::File(wanted)), Origin::File { digest, .. })
            | (Some(WantedOrigin::Package(wanted)), Origin::Package { digest, .. }) => {
                *digest == wanted.to_string()
            }
            (Some(_), _) => false,
            (None, _) => {
                let wanted = self.kernel_version.as_deref().unwrap_or("");
                let release = kernel.release();
                let rest = release.strip_prefix(wanted);
                rest.is_some_and(|rest| wanted.is_empty() || !rest.starts_with(|c: char| c.is_ascii_digit()))
            }
        }
    }

    fn wanted_kernel(&self) -> String {
        let file = self.kernel.as_deref().or(self.deb.as_deref());
        match (file, &self.url, &self.kernel_version) {
            (Some(path), ..) => path.display().to_string(),
            (None, Some(url), _) => url.clone(),
            (None, None, version) => version.clone().unwrap_or_default(),
        }
    }
}

/// SHA-256 of what a kernel was taken from.
enum WantedOrigin {
    File(Digest),
    Package(Digest),
}

/// Firecracker must be there where it is asked for. `None` if there is none, and nobody asks.
fn firecracker(args: &Args, home: &Home) -> Option<Thing> {
    const NAME: &str = "Firecracker";
    let wanted = args.firecracker_version.as_deref();
    let digest = match (&args.firecracker, args.firecracker_digest) {
        (Some(path), _) => match digest_of(path) {
            Ok(digest) => Some(digest),
            Err(error) => {
                let found = format!("cannot read {}: {error}", path.display());
                return Some(Thing::missing(NAME, found));
            }
        },
        (None, digest) => digest,
    };
    let release = match Release::installed(home.data()) {
        Ok(release) => release,
        Err(error) => return Some(Thing::missing(NAME, error.to_string())),
    };
    let fits = |version: &str, of: Option<&str>| {
        wanted.is_none_or(|wanted| wanted == version)
            && digest.is_none_or(|digest| of == Some(digest.to_string().as_str()))
    };
    let (ok, found) = if let Some(release) = release {
        let found = format!("{} ({}, {})", release.version, release.origin, release.digest);
        (fits(&release.version, Some(&release.digest)), found)
    } else if let Some((program, version)) = host::find_firecracker(home) {
        let found = format!("{version} ({})", program.path().display());
        (fits(&version, None), found)
    } else {
        let wanted = match (&args.firecracker, wanted) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(wanted)) => wanted.to_owned(),
            (None, None) => return None,
        };
        (false, format!("{wanted} is not set up"))
    };
    Some(match ok {
        true => Thing::ok(NAME, found),
        false => Thing::missing(NAME, found),
    })
}

/// `None` where there is none and none is needed.
fn qemu(args: &Args, is_needless: bool) -> Option<Thing> {
    const NAME: &str = "QEMU";
    match host::find_qemu(args.arch()) {
        Ok(program) => Some(match program.version() {
            Ok(version) => Thing::ok(NAME, format!("{version} ({})", program.path().display())),
            Err(error) => Thing::missing(NAME, format!("{}: {error}", program.path().display())),
        }),
        Err(_) if is_needless => None,
        Err(error) => {
            let fixes = crate::hints::of(&error);
            Some(Thing::missing(NAME, format!("{error}; {}", fixes.join("; "))))
        }
    }
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}

/// What `--dry-run` says of Firecracker.
pub(super) fn firecracker_line(home: &Home) -> Option<String> {
    let release = Release::installed(home.data()).ok().flatten()?;
    Some(format!("Firecracker: {} is set up", release.version))
}
