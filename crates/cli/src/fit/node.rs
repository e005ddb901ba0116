//! Node.js in an image: where it is, and which version, told by what installed it rather than by running it.

use std::ffi::OsStr;

use crate::image_file::ImageFile;

/// Where `node` usually is.
const PLACES: &[&str] = &[
    "/usr/local/bin/node",
    "/usr/bin/node",
    "/bin/node",
    "/opt/node/bin/node",
];

/// The longest list of packages that is read.
const LIST_LEN: u64 = 32 << 20;

/// Node.js in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The program.
    pub(crate) path: String,
    /// Its major version and its whole one; `None` where nothing tells it.
    pub(crate) version: Option<(u32, String)>,
}

impl Node {
    /// Looks for it.
    pub(crate) fn of(image: &ImageFile) -> anyhow::Result<Option<Node>> {
        for path in PLACES {
            if image.start_of(OsStr::new(path), 4)?.is_some() {
                let version = version(image)?;
                let version = version.and_then(|version| Some((major(&version)?, version)));
                let path = (*path).to_owned();
                return Ok(Some(Node { path, version }));
            }
        }
        Ok(None)
    }
}

/// What the image's makers, its header files, or its package lists say.
fn version(image: &ImageFile) -> anyhow::Result<Option<String>> {
    let json = image.image_json()?;
    let env = json
        .as_ref()
        .and_then(|json| json.get("Env")?.as_array())
        .into_iter()
        .flatten();
    let told = env
        .filter_map(|entry| entry.as_str()?.strip_prefix("NODE_VERSION="))
        .next();
    if let Some(version) = told {
        return Ok(Some(version.trim_start_matches('v').to_owned()));
    }
    type Reader = fn(&str) -> Option<String>;
    let places: [(&str, Reader); 4] = [
        ("/usr/local/include/node/node_version.h", of_header),
        ("/usr/include/node/node_version.h", of_header),
        ("/var/lib/dpkg/status", |text| {
            of_list(text, "Package: nodejs", "Version: ")
        }),
        ("/lib/apk/db/installed", |text| of_list(text, "P:nodejs", "V:")),
    ];
    for (path, read) in places {
        let text = image.start_of(OsStr::new(path), LIST_LEN)?.unwrap_or_default();
        if let Some(version) = read(&String::from_utf8_lossy(&text)) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// `#define NODE_MAJOR_VERSION 20` and so on.
fn of_header(text: &str) -> Option<String> {
    let number = |name: &str| {
        let words = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .filter(|words| words.first() == Some(&"#define") && words.get(1) == Some(&name))
            .find_map(|words| words.get(2)?.parse::<u32>().ok())
    };
    let (major, minor) = (number("NODE_MAJOR_VERSION")?, number("NODE_MINOR_VERSION")?);
    Some(format!("{major}.{minor}.{}", number("NODE_PATCH_VERSION")?))
}

/// A paragraph of a package list that has the line `package`, and its line that begins with `version`.
fn of_list(text: &str, package: &str, version: &str) -> Option<String> {
    let paragraph = text
        .split("\n\n")
        .find(|paragraph| paragraph.lines().any(|line| line == package))?;
    let line = paragraph.lines().find_map(|line| line.strip_prefix(version))?;
    // A Debian epoch comes first: `1:18.13.0`.
    Some(line.rsplit_once(':').map_or(line, |(_, rest)| rest).to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_headers_and_package_lists() {
        let header =
            "#define NODE_MAJOR_VERSION 20\n#define NODE_MINOR_VERSION 11\n#define NODE_PATCH_VERSION 1\n";
        assert_eq!(of_header(header).as_deref(), Some("20.11.1"));
        assert_eq!(of_header("#define NODE_MAJOR_VERSION x\n"), None);
        let dpkg = "Package: a\nVersion: 1\n\nPackage: nodejs\nStatus: ok\nVersion: 1:18.13.0+dfsg1-1\n\n";
        assert_eq!(
            of_list(dpkg, "Package: nodejs", "Version: ").as_deref(),
            Some("18.13.0+dfsg1-1")
        );
        assert_eq!(
            of_list("C:Q1\nP:nodejs\nV:20.15.1-r0\n\nP:x\n", "P:nodejs", "V:").as_deref(),
            Some("20.15.1-r0")
        );
        assert_eq!(of_list(dpkg, "Package: node", "Version: "), None);
        assert_eq!(major("18.13.0"), Some(18));
        assert_eq!(major("next"), None);
    }
}
