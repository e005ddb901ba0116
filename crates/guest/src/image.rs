//! `/etc/firebrick/image.json`: how the OCI image wants to be run. The keys are those of the OCI image config.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

/// Where it lies.
pub const PATH: &str = "/etc/firebrick/image.json";

/// The part of the OCI config that concerns running. What is absent is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Image {
    /// The program and first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// Where the program starts.
    pub working_dir: String,
    /// The signal that asks the program to end.
    pub stop_signal: String,
}

impl Image {
    /// This image's, or the empty one with what is wrong with the file. A missing file is not wrong.
    pub fn load() -> (Image, Option<String>) {
        const LIMIT_BYTES: usize = 1024 * 1024;
        match crate::file::read(PATH, LIMIT_BYTES) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(image) => (image, None),
                Err(error) => (
                    Image::default(),
                    Some(alloc::format!("cannot read {PATH}: {error}")),
                ),
            },
            Err(rustix::io::Errno::NOENT) => (Image::default(), None),
            Err(error) => (
                Image::default(),
                Some(alloc::format!(
                    "cannot read {PATH}: {}",
                    crate::errno::describe(error)
                )),
            ),
        }
    }

    /// ENTRYPOINT and CMD, as they run when nothing else is asked for.
    pub fn command(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_build_writes() {
        let text = r#"{ "Entrypoint": ["/e"], "Cmd": ["a"], "Env": ["A=b"], "WorkingDir": "/srv", "ImageDigest": "sha256:0" }"#;
        let image: Image = serde_json::from_str(text).expect("an image.json");
        assert_eq!(image.command(), ["/e", "a"]);
        assert_eq!(
            (image.env.len(), image.working_dir.as_str(), image.user.as_str()),
            (1, "/srv", "")
        );
        assert_eq!(
            serde_json::from_str::<Image>("{}").expect("empty"),
            Image::default()
        );
    }
}
