//! The address of a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A folder of this host.
    Folder(PathBuf),
    /// A bucket, as its crate reads it.
    Bucket(String),
    /// A registry and the path above the images in it.
    Registry(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Address::Folder(path.into())),
            Some(("file", _)) => Err(format!(
                "{text:?} has no absolute path: a folder is file:///path/to/it"
            )),
            Some(("s3" | "gs" | "az" | "abfs" | "abfss", _)) => Ok(Address::Bucket(text.to_owned())),
            Some(("oci", base)) if !base.is_empty() => Ok(Address::Registry(base.to_owned())),
            // What could be nothing else is a path, as a shell completes it.
            None if text.contains('/') || text.starts_with('.') => std::path::absolute(text)
                .map(Address::Folder)
                .map_err(|error| format!("{text:?} is no path: {error}")),
            _ => Err(format!(
                "{text:?} is no store: expected file:///dir, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or oci://registry/repository"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Folder(path) => write!(f, "file://{}", path.display()),
            Address::Bucket(text) => f.write_str(text),
            Address::Registry(base) => write!(f, "oci://{base}"),
        }
    }
}
