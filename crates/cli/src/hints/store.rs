//! What helps when a store does not do what it should.

use std::error::Error;
use std::io;

use firebrick_bucket::BucketError;
use firebrick_store::{ObjectError, StoreError};

use crate::error::CliError;
use crate::remote::flags;
use crate::text::quoted;

/// Of a bucket that is not even asked.
pub(super) fn of_bucket(error: &BucketError) -> Option<String> {
    match error {
        BucketError::PlainHttp { .. } => {
            Some("if you trust the network on the way to it: --plain-http".to_owned())
        }
        _ => None,
    }
}

pub(super) fn of(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::NoImage { known, .. } if known.is_empty() => {
            format!("see what is there: firebrick rootfs list --remote{}", flags())
        }
        StoreError::NoImage { known, .. } => format!("there are: {}", known.join(", ")),
        StoreError::Corrupt { address, what, .. } => of_corrupt(address, what),
        StoreError::Chunk { .. } => check(),
        StoreError::BadArchive { problem, .. } => of_archive(problem),
        StoreError::Unsupported { action, .. } => return of_unsupported(action),
        StoreError::Foreign { .. } => {
            "see what it is: skopeo inspect --raw, or take a newer firebrick".to_owned()
        }
        StoreError::Key { given: None, .. } => {
            "give the key that it was encrypted with: --key FILE".to_owned()
        }
        StoreError::Key { .. } => "give the other key: --key FILE".to_owned(),
        StoreError::Busy { .. } => "wait for it, or write elsewhere: -o PATH".to_owned(),
        StoreError::Changed { .. } => {
            "try again when nobody writes to the image: it must not run read-write meanwhile".to_owned()
        }
        StoreError::Contended { .. } => "try again".to_owned(),
        StoreError::Stopped => "go on with the same command: what came is kept".to_owned(),
        StoreError::Shared {
            address,
            names,
            others,
        } => format!(
            "it is still there; delete all its names together: firebrick rootfs rm --remote -b {address} {} {}",
            names.join(" "),
            others.join(" ")
        ),
        StoreError::NoRepository { .. } => {
            "registries take lower-case names only: give it another, as in rootfs upload -l NAME -i FILE"
                .to_owned()
        }
        StoreError::Object(error) => return of_object(error),
        StoreError::Registry(error) => return super::registry::of(error),
        _ => return None,
    })
}

fn check() -> String {
    format!(
        "see what else is damaged, and mend what can be: firebrick store check --repair{}",
        flags()
    )
}

/// What helps depends on who wrote the document, and from what it can be had again.
fn of_corrupt(address: &str, what: &str) -> String {
    let flags = flags();
    if what == "index.json" {
        let answer = match address.starts_with("file:") {
            true => "",
            false => "a portal or proxy may answer in its place, so try from another network first; else ",
        };
        return format!(
            "{answer}put a copy of it back, of a backup, or the version before where the bucket keeps those; without one, \
             take it and `oci-layout` away, and upload the images again: firebrick rootfs upload -l NAME{flags}"
        );
    }
    if what == "gc/condemned.json" {
        return format!("have an empty one made, which loses nothing: firebrick store check --repair{flags}");
    }
    if let Some(key) = what.strip_suffix(".sha256") {
        let again = match key == "vmlinux" {
            true => "--kernel FILE",
            false => "-l NAME",
        };
        return format!(
            "whichever of {key} and {what} is wrong, send both again: firebrick rootfs upload --plain {again}{flags}"
        );
    }
    check()
}

fn of_archive(problem: &str) -> String {
    let unpacked = ["gzip", "zstd", "bzip2", "xz"]
        .into_iter()
        .find(|program| problem.ends_with(&format!("compressed by {program}")));
    match unpacked {
        Some("gzip") => format!("unpack it: gunzip -c FILE | firebrick rootfs import -{}", flags()),
        Some(program) => format!(
            "unpack it: {program} -dc FILE | firebrick rootfs import -{}",
            flags()
        ),
        None => {
            "copy it again from where it is right, or write it again: firebrick rootfs export NAME -o FILE"
                .to_owned()
        }
    }
}

/// By what was asked: the library says what cannot be, and these are the ways around it.
fn of_unsupported(action: &str) -> Option<String> {
    let starts = |start: &str| action.starts_with(start);
    Some(if starts("be collected from outside") {
        format!(
            "take names away, firebrick rootfs rm --remote NAME{}, and let the registry's own garbage collection free the rest",
            flags()
        )
    } else if starts("be collected while others") {
        format!("when nobody uploads: firebrick store gc --grace 0{}", flags())
    } else if starts("keep plain files") {
        "leave --plain out, or name a folder or a bucket: -b s3://BUCKET/PREFIX".to_owned()
    } else if starts("be a name in a registry") {
        "give it a shorter tag".to_owned()
    } else {
        return None;
    })
}

/// For an image that is read where it is: its path here is a socket that is gone by now.
pub(super) fn of_served() -> String {
    format!(
        "get it, firebrick rootfs download -l NAME{}, and see what is in it: firebrick rootfs inspect NAME",
        flags()
    )
}

/// Where a store in a folder, or the folder for what an import holds back, has no room: what helps elsewhere is not for these.
pub(super) fn of_place(error: &(dyn Error + 'static)) -> Option<String> {
    let error = match error.downcast_ref() {
        Some(StoreError::Object(error)) => error,
        Some(StoreError::File {
            action: "write in",
            path,
            source,
        }) => {
            let other = match *path == std::env::temp_dir() {
                true => ", or name another folder: TMPDIR=FOLDER",
                false => "",
            };
            return is_full(source).then(|| format!("make room, see: df -h {}{other}", path.display()));
        }
        _ => return None,
    };
    let (ObjectError::Failed { address, source, .. } | ObjectError::Denied { address, source, .. }) = error
    else {
        return None;
    };
    let folder = address.strip_prefix("file://")?;
    let mut cause: Option<&(dyn Error + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>() {
            Some(error) if is_full(error) => {
                return Some(format!("make room where the store is, see: df -h {folder}"));
            }
            Some(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Some(format!(
                    "see why it may not be written there: findmnt -T {folder}"
                ));
            }
            _ => cause = error.source(),
        }
    }
    None
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Of what the commands find wrong themselves.
pub(super) fn of_command(error: &CliError) -> Vec<String> {
    match error {
        CliError::NoStore { config } => {
            let config = config
                .as_ref()
                .map(|path| format!("; or write store = \"…\" into {}", path.display()));
            vec![format!(
                "name one: -b file:///srv/images, or FIREBRICK_STORE=s3://bucket{}",
                config.unwrap_or_default()
            )]
        }
        CliError::NoSuchStore { path } => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(std::path::Path::new("."));
            vec![format!("see what there is: ls {}", quoted(parent))]
        }
        CliError::Unsigned { version, flags, .. } => {
            vec![format!(
                "it need not be sent again: firebrick rootfs sign {version} {flags}"
            )]
        }
        _ => Vec::new(),
    }
}

fn of_object(error: &ObjectError) -> Option<String> {
    Some(match error {
        ObjectError::Denied { address, .. } if address.starts_with("file:") => {
            format!(
                "look who may write there: ls -ld {}",
                address.trim_start_matches("file://")
            )
        }
        ObjectError::Locked { path, .. } => format!("see who holds it: fuser -v {}", quoted(path)),
        ObjectError::NoCredentials { address, .. } => credentials(address).to_owned(),
        ObjectError::BadCredentials { address, .. } => credentials(address).to_owned(),
        ObjectError::NoBucket { .. } => {
            "make it first, with the tools of its provider; or name another: -b STORE".to_owned()
        }
        ObjectError::WrongRegion {
            region: Some(region), ..
        } => format!("say so: AWS_REGION={region}"),
        ObjectError::WrongRegion { .. } => "say which: AWS_REGION=REGION".to_owned(),
        ObjectError::Unreachable { endpoint, .. } => format!("see whether it answers: curl -I {endpoint}"),
        ObjectError::Denied { .. } => "look which key is used, and what it may do".to_owned(),
        ObjectError::Missing { .. } | ObjectError::Short { .. } => {
            format!(
                "something else removed or changed it; see what the store lacks: firebrick store check{}",
                flags()
            )
        }
        _ => return None,
    })
}

fn credentials(address: &str) -> &'static str {
    match address.split("://").next() {
        Some("gs") => {
            "name a key file: GOOGLE_APPLICATION_CREDENTIALS=FILE; or log in: gcloud auth application-default login"
        }
        Some("az") => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        }
        Some("s3") => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        _ => "log in: docker login REGISTRY",
    }
}
