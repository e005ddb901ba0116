//! `/etc/firebrick/image.json`: the part of the OCI config that says how to run the image.
//!
//! The keys are those of the OCI image config, so that whoever knows one can read the other
//! (<https://github.com/opencontainers/image-spec/blob/main/config.md#properties>).

use serde::Serialize;

/// What the OCI config says about running the image. Empty means: it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// The program and first arguments, in exec form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program if there is no entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid` or a mix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Where the program starts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The signal that asks the program to end, such as `SIGQUIT` or `3`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageJson {
    /// How to run it.
    #[serde(flatten)]
    pub run: RunConfig,
    /// The digest of the OCI image's manifest, where it has one: where this image came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// When the OCI image was made, as its config writes it (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

impl ImageJson {
    /// The bytes of the file: indented JSON with a fixed key order and a newline at its end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("strings and lists of strings always have a JSON form");
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_oci_config() {
        let json = ImageJson {
            run: RunConfig {
                entrypoint: vec!["/bin/\"x\"".into()],
                env: vec!["A=ä".into()],
                working_dir: "/srv".into(),
                ..RunConfig::default()
            },
            image_digest: Some("sha256:00".into()),
            created: None,
        };
        let text = String::from_utf8(json.to_bytes()).unwrap();
        assert_eq!(
            text,
            "{\n  \"Entrypoint\": [\n    \"/bin/\\\"x\\\"\"\n  ],\n  \"Env\": [\n    \"A=ä\"\n  ],\n  \
             \"WorkingDir\": \"/srv\",\n  \"ImageDigest\": \"sha256:00\"\n}\n"
        );
        assert_eq!(ImageJson::default().to_bytes(), b"{}\n");
    }
}
