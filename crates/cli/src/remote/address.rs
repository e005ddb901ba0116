//! The address of a store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use firebrick_registry::RepositoryName;

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
            Some(("s3" | "gs" | "az" | "abfs" | "abfss", rest))
                if rest.starts_with('/') || rest.is_empty() =>
            {
                Err(format!("{text:?} names no bucket"))
            }
            Some(("s3" | "gs" | "az" | "abfs" | "abfss", _)) => Ok(Address::Bucket(text.to_owned())),
            Some(("oci", base)) => {
                match format!("{}/name", base.trim_end_matches('/')).parse::<RepositoryName>() {
                    Ok(_) => Ok(Address::Registry(base.to_owned())),
                    Err(problem) => Err(format!("{text:?} is no place for repositories: {problem}")),
                }
            }
            None if let Some(meant) = meant(text) => {
                Err(format!("{text:?} is no store: did you mean {meant}"))
            }
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

/// An address whose slashes are not right. A folder of such a name is given as `./s3:`.
fn meant(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(":/")?;
    match scheme {
        "file" => Some(format!("file:///{rest}")),
        "s3" | "gs" | "az" | "abfs" | "abfss" | "oci" => Some(format!("{scheme}://{rest}")),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_three_kinds() {
        let parsed = |text: &str| text.parse::<Address>();
        assert_eq!(parsed("file:///x/y"), Ok(Address::Folder("/x/y".into())));
        assert_eq!(
            parsed("./x").map(|found| found.to_string().starts_with("file:///")),
            Ok(true)
        );
        for text in [
            "s3://bucket/prefix",
            "gs://bucket",
            "az://container/prefix",
            "oci://localhost:5000",
            "oci://ghcr.io/me/images",
        ] {
            assert_eq!(parsed(text).map(|found| found.to_string()), Ok(text.to_owned()));
        }
        for bad in [
            "",
            "x",
            "file://x",
            "ftp://x/y",
            "oci://",
            "oci://host/UPPER",
            "oci:dir:tag",
            "s3://",
            "gs:///x",
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        for (typo, meant) in [
            ("s3:/x", "s3://x"),
            ("oci:/host/x", "oci://host/x"),
            ("file:/x", "file:///x"),
        ] {
            let said = parsed(typo).unwrap_err();
            assert!(said.ends_with(&format!("did you mean {meant}")), "{said}");
        }
        assert!(parsed("./s3:/x").is_ok());
    }
}
