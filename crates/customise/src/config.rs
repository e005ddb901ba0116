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

/// Something in an OCI config that no program can be given. Its text says what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OddConfig {
    /// An environment entry that is no `NAME=VALUE`.
    #[error("ENV entry {entry:?} is left out: it is not NAME=VALUE")]
    NotAVariable {
        /// The entry.
        entry: String,
    },
    /// A NUL would end the text early.
    #[error("{field} {text:?} is left out: it holds a NUL byte")]
    Nul {
        /// Which part of the config.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// Programs that write JSON put U+FFFD where bytes were not UTF-8.
    #[error("ENV entry {entry:?} has bytes that were lost when the OCI image was made: they were not UTF-8")]
    Lost {
        /// The entry.
        entry: String,
    },
}

impl RunConfig {
    /// Takes out what no program can be given, and tells it.
    ///
    /// ENTRYPOINT and CMD lose all their words with one that holds a NUL: half a command is another command.
    pub fn take_odd(&mut self) -> Vec<OddConfig> {
        let mut odd = Vec::new();
        self.env.retain(|entry| match odd_variable(entry) {
            None => true,
            Some(found) => {
                let kept = matches!(found, OddConfig::Lost { .. });
                odd.push(found);
                kept
            }
        });
        for (field, words) in [("ENTRYPOINT", &mut self.entrypoint), ("CMD", &mut self.cmd)] {
            if let Some(word) = words.iter().find(|word| word.contains('\0')) {
                odd.push(nul(field, word));
                words.clear();
            }
        }
        for (field, text) in [
            ("USER", &mut self.user),
            ("WORKDIR", &mut self.working_dir),
            ("StopSignal", &mut self.stop_signal),
        ] {
            if text.contains('\0') {
                odd.push(nul(field, text));
                text.clear();
            }
        }
        odd
    }
}

fn nul(field: &'static str, text: &str) -> OddConfig {
    OddConfig::Nul {
        field,
        text: text.to_owned(),
    }
}

fn odd_variable(entry: &str) -> Option<OddConfig> {
    let owned = || entry.to_owned();
    match entry.split_once('=') {
        _ if entry.contains('\0') => Some(nul("ENV entry", entry)),
        None | Some(("", _)) => Some(OddConfig::NotAVariable { entry: owned() }),
        _ if entry.contains('\u{fffd}') => Some(OddConfig::Lost { entry: owned() }),
        _ => None,
    }
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
    /// The layers that the image is made of, lowest first; the last one is the one that this file is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ImageLayer>,
}

/// A layer, and where the contents of its files lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageLayer {
    /// Digest of its tar. The layer that this file is in cannot name its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// Where its region starts in the image, in bytes. In a compressed image none has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
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
    fn what_no_program_can_be_given_is_taken_out_and_told() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut run = RunConfig {
            entrypoint: words(&["/bin/x", "a\0b"]),
            cmd: words(&["y"]),
            env: words(&["A=1", "B", "=c", "D=\0", "E=\u{fffd}", "F="]),
            user: "me\0".to_owned(),
            ..RunConfig::default()
        };
        let said: Vec<String> = run.take_odd().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "ENV entry \"B\" is left out: it is not NAME=VALUE",
                "ENV entry \"=c\" is left out: it is not NAME=VALUE",
                "ENV entry \"D=\\0\" is left out: it holds a NUL byte",
                "ENV entry \"E=\u{fffd}\" has bytes that were lost when the OCI image was made: they were not UTF-8",
                "ENTRYPOINT \"a\\0b\" is left out: it holds a NUL byte",
                "USER \"me\\0\" is left out: it holds a NUL byte",
            ]
        );
        assert_eq!(run.env, ["A=1", "E=\u{fffd}", "F="]);
        assert_eq!((run.entrypoint, run.cmd), (vec![], words(&["y"])));
        assert_eq!(run.user, "");
    }

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
            layers: vec![
                ImageLayer {
                    diff_id: Some("sha256:01".into()),
                    start: Some(1 << 20),
                },
                ImageLayer::default(),
            ],
        };
        let text = String::from_utf8(json.to_bytes()).unwrap();
        assert_eq!(
            text,
            "{\n  \"Entrypoint\": [\n    \"/bin/\\\"x\\\"\"\n  ],\n  \"Env\": [\n    \"A=ä\"\n  ],\n  \
             \"WorkingDir\": \"/srv\",\n  \"ImageDigest\": \"sha256:00\",\n  \
             \"Layers\": [\n    {\n      \"DiffId\": \"sha256:01\",\n      \"Start\": 1048576\n    },\n    {}\n  ]\n}\n"
        );
        assert_eq!(ImageJson::default().to_bytes(), b"{}\n");
    }
}
