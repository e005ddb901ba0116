//! The image config: what a container would run, and the layers' diff IDs.
//!
//! Format: <https://github.com/opencontainers/image-spec/blob/main/config.md>. Docker's config has the same fields.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use firebrick_digest::Digest;
use firebrick_registry::quote::quoted;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Part, SourceError};
use crate::platform::Platform;

/// The parsed image config. Fields that the config leaves out are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// When the image was made, as written (RFC 3339).
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// The program that always runs, with its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments after `entrypoint`, or the program itself where there is no entrypoint.
    pub cmd: Vec<String>,
    /// The environment as `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// User and maybe group, by name or number: `user`, `uid`, `user:group`.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// The signal that asks the program to end.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports the program listens on, as `PORT/PROTOCOL`, sorted.
    pub exposed_ports: Vec<String>,
    /// Folders meant for data, sorted.
    pub volumes: Vec<String>,
    /// The layers' diff IDs, lowest layer first.
    pub diff_ids: Vec<Digest>,
    /// The config as it was read, byte for byte; empty where there is none.
    pub raw: Vec<u8>,
}

#[derive(Deserialize)]
struct RawConfig {
    created: Option<String>,
    author: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<RawRuntime>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRuntime {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<String>>,
}

/// Parses an image config and the platform it names, if it names one.
///
/// # Errors
/// [`SourceError::Json`], [`SourceError::Malformed`] or [`SourceError::DigestAlgorithm`] on anything that is not an
/// image config; `place` only serves the message.
pub fn parse_config(bytes: &[u8], place: &str) -> Result<(ImageConfig, Option<Platform>), SourceError> {
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|source| SourceError::Json {
        part: Part::Config,
        place: place.to_owned(),
        source: source.into(),
    })?;
    let malformed = |problem| SourceError::Malformed {
        part: Part::Config,
        place: place.to_owned(),
        problem,
    };
    let rootfs = raw.rootfs.ok_or_else(|| malformed("it has no rootfs"))?;
    if rootfs.kind.is_some_and(|kind| kind != "layers") {
        return Err(malformed("its rootfs is not of type \"layers\""));
    }
    let mut diff_ids = Vec::new();
    for (layer, text) in rootfs.diff_ids.unwrap_or_default().into_iter().enumerate() {
        diff_ids.push(text.parse().map_err(|_| SourceError::DigestAlgorithm {
            part: Part::Layer(layer),
            digest: quoted(&text),
        })?);
    }
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let platform = some(raw.architecture).map(|architecture| Platform {
        os: some(raw.os).unwrap_or_else(|| "linux".to_owned()),
        architecture,
        variant: some(raw.variant),
    });
    let runtime = raw.config.unwrap_or_default();
    let keys = |map: Option<BTreeMap<String, IgnoredAny>>| map.unwrap_or_default().into_keys().collect();
    let config = ImageConfig {
        created: some(raw.created),
        author: some(raw.author),
        entrypoint: runtime.entrypoint.unwrap_or_default(),
        cmd: runtime.cmd.unwrap_or_default(),
        env: runtime.env.unwrap_or_default(),
        user: some(runtime.user),
        working_dir: some(runtime.working_dir),
        stop_signal: some(runtime.stop_signal),
        labels: runtime.labels.unwrap_or_default(),
        exposed_ports: keys(runtime.exposed_ports),
        volumes: keys(runtime.volumes),
        diff_ids,
        raw: bytes.to_owned(),
    };
    Ok((config, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let id = Digest::of(b"layer");
        let text = format!(
            r#"{{"created":"2024-01-02T03:04:05Z","author":"me","architecture":"arm","os":"linux","variant":"v6",
            "config":{{"Entrypoint":["/e"],"Cmd":["c","d"],"Env":["A=1","B="],"User":"1000:10","WorkingDir":"/w",
            "StopSignal":"SIGINT","Labels":{{"k":"v"}},"ExposedPorts":{{"80/tcp":{{}},"443/tcp":{{}}}},
            "Volumes":{{"/data":{{}}}},"Healthcheck":{{"Test":["x"]}}}},
            "rootfs":{{"type":"layers","diff_ids":["{id}"]}},"history":[{{"empty_layer":true}}]}}"#
        );
        let (config, platform) = parse_config(text.as_bytes(), "test").unwrap();
        assert_eq!(platform.unwrap().to_string(), "linux/arm/v6");
        assert_eq!(config.entrypoint, ["/e"]);
        assert_eq!(config.cmd, ["c", "d"]);
        assert_eq!(config.env, ["A=1", "B="]);
        assert_eq!(config.user.as_deref(), Some("1000:10"));
        assert_eq!(config.working_dir.as_deref(), Some("/w"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.labels["k"], "v");
        assert_eq!(config.exposed_ports, ["443/tcp", "80/tcp"]);
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(config.diff_ids, [id]);
        assert_eq!(config.created.as_deref(), Some("2024-01-02T03:04:05Z"));
        assert_eq!(config.raw, text.as_bytes());
    }

    #[test]
    fn nulls_are_empty() {
        let text = r#"{"config":{"Entrypoint":null,"Cmd":null,"Env":null,"Labels":null,"User":""},
            "rootfs":{"type":"layers","diff_ids":null},"os":"","architecture":""}"#;
        let (config, platform) = parse_config(text.as_bytes(), "test").unwrap();
        assert_eq!(platform, None);
        assert_eq!(
            config,
            ImageConfig {
                raw: text.into(),
                ..ImageConfig::default()
            }
        );
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for (text, why) in [
            ("{}", "no rootfs"),
            ("[]", "not valid"),
            (r#"{"rootfs":{"type":"other"}}"#, "type"),
            (r#"{"rootfs":{"diff_ids":["sha512:00"]}}"#, "only sha256"),
            (r#"{"rootfs":{"diff_ids":[1]}}"#, "not valid"),
        ] {
            let error = parse_config(text.as_bytes(), "test").unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(parse_config(format!("{{\"config\":{deep}").as_bytes(), "test").is_err());
    }
}
