//! Profiles of the AWS tools: `~/.aws/credentials` and `~/.aws/config`.
//!
//! The files are sections of `key = value` lines; a section is `[name]` in the first, `[profile name]` or `[default]` in the
//! second. Indented lines below a key are a map of their own (`s3 =`).
//! Layout: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::error::BucketError;
use crate::options::Options;

/// The largest file that is read, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Keys of a section; those of a map below `s3` are called `s3.key`.
type Section = BTreeMap<String, String>;

/// What the chosen profile says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) settings: Section,
}

impl Profile {
    /// The profile that the variables choose, from the files that they name.
    ///
    /// # Errors
    /// [`BucketError::NoProfile`] if it was chosen by name and neither file has it.
    pub(crate) fn read(options: &Options) -> Result<Profile, BucketError> {
        let home = options
            .variable(&["HOME"])
            .map(|home| Path::new(home).join(".aws"));
        let path = |variable, name| {
            let named = options.variable(&[variable]).map(PathBuf::from);
            named.or_else(|| home.as_ref().map(|home| home.join(name)))
        };
        let chosen = options.variable(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let name = chosen.unwrap_or("default");
        let credentials = text(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let config = text(path("AWS_CONFIG_FILE", "config"))?;
        match find(name, &credentials, &config) {
            Some(profile) => Ok(profile),
            None if chosen.is_none() => Ok(Profile::default()),
            None => Err(BucketError::NoProfile {
                profile: name.to_owned(),
            }),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.settings
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The way to credentials that only the AWS tools can go.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        [
            "credential_process",
            "sso_session",
            "sso_start_url",
            "source_profile",
            "credential_source",
            "login_session",
        ]
        .into_iter()
        .find(|key| self.get(key).is_some())
    }
}

/// A file's text; nothing where there is no such file.
fn text(path: Option<PathBuf>) -> Result<String, BucketError> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(BucketError::File { path, source }),
    }
}

/// A profile out of both files; the first comes first.
fn find(name: &str, credentials: &str, config: &str) -> Option<Profile> {
    let sections = sections(config);
    let long = format!("profile {name}");
    let below = sections
        .get(&long)
        .or_else(|| (name == "default").then(|| sections.get(name)).flatten());
    let above = self::sections(credentials).remove(name);
    if above.is_none() && below.is_none() {
        return None;
    }
    let mut settings = below.cloned().unwrap_or_default();
    // Endpoints of services may stand in a section of their own.
    let services = settings
        .get("services")
        .map(|services| format!("services {services}"));
    let endpoint = services.and_then(|services| sections.get(&services)?.get("s3.endpoint_url").cloned());
    if let Some(endpoint) = endpoint {
        settings.insert("endpoint_url".to_owned(), endpoint);
    }
    settings.extend(above.unwrap_or_default());
    Some(Profile {
        name: name.to_owned(),
        settings,
    })
}

fn sections(text: &str) -> BTreeMap<String, Section> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut name: Option<String> = None;
    let mut parent = String::new();
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let words: Vec<&str> = header.split_whitespace().collect();
            let header = words.join(" ");
            sections.entry(header.clone()).or_default();
            name = Some(header);
            parent.clear();
            continue;
        }
        let (Some(name), Some((key, value))) = (&name, bare.split_once('=')) else {
            continue;
        };
        let key = key.trim().to_ascii_lowercase();
        // A comment may follow a value after a space.
        let value = value
            .split(" #")
            .next()
            .unwrap_or("")
            .split(" ;")
            .next()
            .unwrap_or("")
            .trim();
        let is_below = line.starts_with([' ', '\t']) && !parent.is_empty();
        let full = if is_below {
            format!("{parent}.{key}")
        } else {
            key.clone()
        };
        if !is_below {
            parent = if value.is_empty() { key } else { String::new() };
        }
        sections
            .entry(name.clone())
            .or_default()
            .insert(full, value.to_owned());
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# mine
[default]
aws_access_key_id = AKDEF
aws_secret_access_key=abc/+=  # kept apart

[ work ]
AWS_ACCESS_KEY_ID = AKWORK
aws_secret_access_key = x
aws_session_token = t==
";
    const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
    addressing_style = path
    max_concurrent_requests = 20
output = json
[profile work]
region = us-west-2
services = mine
[services mine]
s3 =
  endpoint_url = http://127.0.0.1:9000
dynamodb =
  endpoint_url = http://127.0.0.1:9001
[profile sso]
sso_session = corp
[plain]
region = never
";

    fn settings(name: &str) -> Vec<String> {
        let profile = find(name, CREDENTIALS, CONFIG).unwrap();
        profile
            .settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    #[test]
    fn both_files_make_one_profile() {
        assert_eq!(
            settings("default"),
            [
                "aws_access_key_id=AKDEF",
                "aws_secret_access_key=abc/+=",
                "output=json",
                "region=eu-west-1",
                "s3=",
                "s3.addressing_style=path",
                "s3.max_concurrent_requests=20",
            ]
        );
        assert_eq!(
            settings("work"),
            [
                "aws_access_key_id=AKWORK",
                "aws_secret_access_key=x",
                "aws_session_token=t==",
                "endpoint_url=http://127.0.0.1:9000",
                "region=us-west-2",
                "services=mine",
            ]
        );
    }

    #[test]
    fn what_is_no_profile() {
        assert_eq!(find("plain", CREDENTIALS, CONFIG), None);
        assert_eq!(find("nobody", CREDENTIALS, CONFIG), None);
        assert_eq!(
            find("sso", CREDENTIALS, CONFIG).unwrap().unsupported(),
            Some("sso_session")
        );
        for odd in ["", "[", "[]", "=", "a=b", "[a\nb=c", "[a]\n=\n b=c\n", "\u{0}[a]"] {
            sections(odd);
        }
    }

    #[test]
    fn files_and_names_come_from_variables() {
        let home = tempfile::tempdir().unwrap();
        let options = |pairs: &[(&str, &str)]| Options {
            variables: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Options::default()
        };
        let path = home.path().to_str().unwrap();
        assert_eq!(
            Profile::read(&options(&[("HOME", path)])).unwrap(),
            Profile::default()
        );
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(home.path().join("other"), CONFIG).unwrap();
        let found = Profile::read(&options(&[("HOME", path)])).unwrap();
        assert_eq!(
            (found.get("aws_access_key_id"), found.get("region")),
            (Some("AKDEF"), None)
        );
        let other = home.path().join("other");
        let chosen = [
            ("HOME", path),
            ("AWS_PROFILE", "work"),
            ("AWS_CONFIG_FILE", other.to_str().unwrap()),
        ];
        let found = Profile::read(&options(&chosen)).unwrap();
        assert_eq!(
            (found.get("aws_access_key_id"), found.get("region")),
            (Some("AKWORK"), Some("us-west-2"))
        );
        let error = Profile::read(&options(&[("HOME", path), ("AWS_PROFILE", "nobody")])).unwrap_err();
        assert!(matches!(error, BucketError::NoProfile { .. }), "{error}");
    }
}
