//! Who we are to a registry: the caller's credentials, Docker's config file, credential helpers.
//!
//! Helper protocol: <https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use crate::error::RegistryError;
use crate::options::{Credentials, RegistryOptions};
use crate::quote::quoted;

const CONFIG_LIMIT: u64 = 4 << 20;
const HELPER_LIMIT: u64 = 1 << 20;
/// The key under which Docker keeps Docker Hub's credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: Option<BTreeMap<String, AuthEntry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Finds the credentials for a repository: the caller's, then a helper for the host, then the general helper, then
/// what the file itself holds.
pub(crate) fn find(
    options: &RegistryOptions,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, RegistryError> {
    if let Some(credentials) = options.credentials.get(registry) {
        return Ok(Some(credentials.clone()));
    }
    let Some(path) = &options.docker_config else {
        return Ok(None);
    };
    let Some(config) = read_config(path)? else {
        return Ok(None);
    };
    let server = if registry == "docker.io" {
        HUB_KEY
    } else {
        registry
    };
    let helpers = config.cred_helpers.unwrap_or_default();
    let for_host = helpers.iter().find(|(key, _)| normal_key(key) == registry);
    let helper = for_host.map(|(_, helper)| helper).or(config.creds_store.as_ref());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty())
        && let Some(credentials) = ask_helper(options, path, helper, registry, server)?
    {
        return Ok(Some(credentials));
    }
    let auths = config.auths.unwrap_or_default();
    let full = format!("{registry}/{repository}");
    // The longest key that names the repository, a folder above it, or the registry.
    let best = auths
        .iter()
        .map(|(key, entry)| (normal_key(key), entry))
        .filter(|(key, _)| {
            full == *key
                || full
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        })
        .max_by_key(|(key, _)| key.len());
    match best {
        None => Ok(None),
        Some((_, entry)) => entry
            .credentials()
            .map_err(|problem| RegistryError::DockerConfig {
                path: path.clone(),
                problem: format!("the entry for {registry} {problem}"),
            }),
    }
}

fn read_config(path: &Path) -> Result<Option<DockerConfig>, RegistryError> {
    let unusable = |problem: String| RegistryError::DockerConfig {
        path: path.to_owned(),
        problem,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable(error.to_string()))?;
    // The parser's words may quote a secret: say only where.
    let config = serde_json::from_slice(&bytes).map_err(|error| {
        unusable(format!(
            "it is not valid at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    Ok(Some(config))
}

/// Keys are hosts, hosts with folders (podman), or web addresses (old Dockers).
fn normal_key(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or(key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/').unwrap_or((key, "")) {
        ("index.docker.io" | "registry-1.docker.io", "") => "docker.io".to_owned(),
        ("index.docker.io" | "registry-1.docker.io", rest) => format!("docker.io/{rest}"),
        _ => key.to_owned(),
    }
}

impl AuthEntry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Credentials::RegistryToken(token)));
        }
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let (Some(username), Some(password)) = (some(&self.username), some(&self.password)) {
            return Ok(Some(Credentials::Basic { username, password }));
        }
        let Some(auth) = some(&self.auth) else {
            return Ok(None);
        };
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or("is not base64")?;
        let (username, password) = decoded.split_once(':').ok_or("has no password")?;
        Ok(Some(Credentials::Basic {
            username: username.to_owned(),
            // Docker pads the password with NULs in some versions, and takes them off.
            password: password.trim_end_matches('\0').to_owned(),
        }))
    }
}

fn ask_helper(
    options: &RegistryOptions,
    config: &Path,
    name: &str,
    registry: &str,
    server: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{name}");
    let failed = |message: &dyn fmt::Display| RegistryError::CredentialHelper {
        helper: program.clone(),
        config: config.to_owned(),
        registry: registry.to_owned(),
        message: message.to_string(),
    };
    if name.contains(['/', '\0']) {
        return Err(failed(&"its name holds a slash"));
    }
    let in_folder = options
        .credential_helper_dirs
        .iter()
        .map(|folder| folder.join(&program))
        .find(|path| path.exists());
    let mut child = Command::new(in_folder.unwrap_or_else(|| program.clone().into()))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| match error.kind() {
            // Of a program that is nowhere this is said too, where the PATH has folders that are closed to us.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                failed(&"there is no such program in the PATH that we may run")
            }
            _ => failed(&error),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input may still answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut answer = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(HELPER_LIMIT).read_to_end(&mut answer),
        None => Ok(0),
    };
    let status = child.wait().map_err(|error| failed(&error))?;
    read.map_err(|error| failed(&error))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        // The words that all helpers share for "I have none".
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let text = quoted(text.trim());
        return Err(failed(&format!("{status}: {text}")));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| failed(&"its answer is not the JSON it should be"))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credentials::IdentityToken(secret)),
        (username, password) => Some(Credentials::Basic {
            username: username.to_owned(),
            password,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_ages() {
        for (key, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("ghcr.io/v2/", "ghcr.io"),
            ("quay.io/team", "quay.io/team"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(normal_key(key), expected, "{key}");
        }
    }

    fn find_in(config: &str, registry: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let options = RegistryOptions {
            docker_config: Some(path),
            ..RegistryOptions::default()
        };
        find(&options, registry, repository)
    }

    fn basic(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn the_longest_key_decides() {
        // joe:pass and ann:word in base64.
        let config = r#"{"auths":{"quay.io":{"auth":"am9lOnBhc3M="},"quay.io/team":{"auth":"YW5uOndvcmQ="},
            "https://index.docker.io/v1/":{"username":"u","password":"p"},"empty.io":{},
            "token.io":{"identitytoken":"t"}}}"#;
        assert_eq!(find_in(config, "quay.io", "x").unwrap(), basic("joe", "pass"));
        assert_eq!(
            find_in(config, "quay.io", "team/x").unwrap(),
            basic("ann", "word")
        );
        assert_eq!(find_in(config, "quay.io", "teams").unwrap(), basic("joe", "pass"));
        assert_eq!(
            find_in(config, "docker.io", "library/x").unwrap(),
            basic("u", "p")
        );
        assert_eq!(find_in(config, "empty.io", "x").unwrap(), None);
        assert_eq!(find_in(config, "other.io", "x").unwrap(), None);
        let token = find_in(config, "token.io", "x").unwrap();
        assert_eq!(token, Some(Credentials::IdentityToken("t".to_owned())));
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        for config in [
            r#"{"auths":{"a.io":{"auth":"s3cret!"}}}"#,
            r#"{"auths":{"a.io":{"auth":"s3cret"#,
        ] {
            let error = find_in(config, "a.io", "x").unwrap_err();
            assert!(matches!(error, RegistryError::DockerConfig { .. }), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
