//! What helps when a store does not do what it should.

use firebrick_store::{ObjectError, StoreError};

use crate::error::CliError;
use crate::text::quoted;

pub(super) fn of(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::NoImage { known, .. } if known.is_empty() => {
            "see what is there: firebrick rootfs list --remote".to_owned()
        }
        StoreError::NoImage { known, .. } => format!("there are: {}", known.join(", ")),
        StoreError::Corrupt { .. } | StoreError::Chunk { .. } => {
            "see what else is damaged, and mend what can be: firebrick store check --repair".to_owned()
        }
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
            "something else removed or changed it; see what the store lacks: firebrick store check".to_owned()
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
