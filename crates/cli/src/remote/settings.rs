//! `config.toml`: what a user does not want to say each time.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use super::Address;
use crate::error::CliError;

/// Longest file that is read, in bytes.
const LEN_MAX: u64 = 64 << 10;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The store where none is named.
    store: Option<String>,
}

/// The store that is meant where none is named.
pub(crate) fn default_store() -> anyhow::Result<Address> {
    let parse = |text: &str, from: String| {
        text.parse::<Address>()
            .map_err(|problem| anyhow::anyhow!("{from}: {problem}"))
    };
    if let Ok(text) = std::env::var("FIREBRICK_STORE")
        && !text.is_empty()
    {
        return parse(&text, "FIREBRICK_STORE".to_owned());
    }
    for path in paths() {
        let Some(settings) = read(&path)? else { continue };
        if let Some(text) = settings.store {
            return parse(&text, path.display().to_string());
        }
    }
    Err(CliError::NoStore {
        config: paths().next(),
    }
    .into())
}

/// The user's own file, then the host's.
fn paths() -> impl Iterator<Item = PathBuf> {
    config_folders()
        .into_iter()
        .map(|folder| folder.join("config.toml"))
}

/// Folders for what is configured: the user's own, then the host's.
pub(crate) fn config_folders() -> Vec<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let own = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    own.into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|folder| folder.join("firebrick"))
        .collect()
}

fn read(path: &std::path::Path) -> anyhow::Result<Option<Settings>> {
    let reading = || format!("cannot read {path:?}");
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(reading),
        Ok(found) if found.len() > LEN_MAX => anyhow::bail!("{path:?} has more than {LEN_MAX} bytes"),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).with_context(reading)?;
    toml::from_str(&text)
        .map(Some)
        .with_context(|| format!("cannot make sense of {path:?}"))
}
