//! What a published image tells of itself: everything to everybody, or of a sealed one nearly nothing to who has no key.
//!
//! The config of a sealed image says in the open what its reader must run, for which key it is, and about how long it is. All of it, and
//! all else, is in `sealed`, filled up to whole kilobytes: nothing in the open is made of what is in the image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::manifest::{About, Config, as_text};
use crate::seal::Seal;

/// What is sealed is filled up to a multiple of so many bytes.
const FILLED: usize = 1024;
/// How many lengths are told apart between one power of two and the next.
const STEPS: u32 = 8;

/// What the config of an image tells without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What the image is: of a sealed one processor, system and format only.
    pub about: About,
    /// Length of the image, in bytes: of a sealed one rounded up, by an eighth at most.
    pub size: u64,
    /// Tells whose key the chunks are sealed with; `None` for nobody's.
    pub key: Option<String>,
    rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Open(Box<Config>),
    Sealed(Sealed),
}

/// The config of a sealed image, as it is stored.
#[derive(Serialize, Deserialize)]
struct Shell {
    #[serde(flatten)]
    about: About,
    size: u64,
    key: String,
    sealed: Sealed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    /// The keyed id of what is sealed.
    #[serde(with = "as_text")]
    id: Id,
    /// In base64.
    bytes: String,
}

impl Told {
    /// Reads the bytes of a config.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Told, String> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if value.get("sealed").is_none() {
            let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
            return match &config.key {
                Some(_) => Err("it is of a key, and is not sealed".to_owned()),
                None => Ok(Told::open(config)),
            };
        }
        let shell: Shell = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Told {
            about: shell.about,
            size: shell.size,
            key: Some(shell.key),
            rest: Rest::Sealed(shell.sealed),
        })
    }

    fn open(config: Config) -> Told {
        Told {
            about: config.about.clone(),
            size: config.size,
            key: None,
            rest: Rest::Open(Box::new(config)),
        }
    }

    /// The whole config. `seal` is that of its key.
    pub(crate) fn config(&self, seal: &Seal) -> Result<Config, String> {
        let sealed = match &self.rest {
            Rest::Open(config) => return Ok(Config::clone(config)),
            Rest::Sealed(sealed) => sealed,
        };
        let bytes = STANDARD
            .decode(&sealed.bytes)
            .map_err(|error| error.to_string())?;
        let bytes = seal
            .open_document(&sealed.id, bytes)
            .map_err(|error| error.to_string())?;
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let inside = (open_part(&config.about), coarse(config.size), &config.key);
        match inside == (self.about.clone(), self.size, &self.key) {
            true => Ok(config),
            false => Err("it does not say in the open what is sealed in it".to_owned()),
        }
    }
}

/// The bytes of a config, and the length of the image that is told. `seal` is that of its key.
pub(crate) fn encode(config: &Config, seal: &Seal) -> (Vec<u8>, u64) {
    let json = |value: &dyn Fn() -> serde_json::Result<Vec<u8>>| {
        value().expect("nothing in a config fails to be JSON")
    };
    let mut bytes = json(&|| serde_json::to_vec(config));
    let Some(key) = &config.key else {
        return (bytes, config.size);
    };
    // Spaces behind JSON are JSON.
    bytes.resize(bytes.len().next_multiple_of(FILLED), b' ');
    let (id, sealed) = seal.close_document(bytes);
    let size = coarse(config.size);
    let shell = Shell {
        about: open_part(&config.about),
        size,
        key: key.clone(),
        sealed: Sealed {
            id,
            bytes: STANDARD.encode(sealed),
        },
    };
    (json(&|| serde_json::to_vec(&shell)), size)
}

/// What must be known before there is a key: whether the image fits the host, and what to call its file.
fn open_part(about: &About) -> About {
    About {
        architecture: about.architecture.clone(),
        os: about.os.clone(),
        format: about.format.clone(),
        ..About::default()
    }
}

/// A length that many others have, too: rounded up by an eighth at most.
fn coarse(len: u64) -> u64 {
    let power = 1_u64 << len.checked_ilog2().unwrap_or(0);
    let step = (power / u64::from(STEPS)).max(4096);
    len.checked_next_multiple_of(step).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use firebrick_digest::Digest;

    use super::*;

    fn config(seal: &Seal) -> Config {
        Config {
            about: About {
                architecture: "amd64".to_owned(),
                os: "linux".to_owned(),
                format: "ext4".to_owned(),
                label: Some("secret label".to_owned()),
                ..About::default()
            },
            size: 1_234_567 * 4096,
            data: 77 * 4096,
            content: Digest::of(b"content"),
            table_len: 999,
            table_id: Id::of(b"root"),
            key: seal.fingerprint().map(str::to_owned),
        }
    }

    #[test]
    fn sealed_configs_open_with_their_key_only() {
        let seal = Seal::keyed(&[1; 32]);
        let whole = config(&seal);
        let (bytes, size) = encode(&whole, &seal);
        assert_eq!(bytes, encode(&whole, &seal).0, "the same twice");
        let told = Told::decode(&bytes).unwrap();
        assert_eq!((told.size, told.about.label.clone()), (size, None));
        assert_eq!(told.about.format, "ext4");
        assert_eq!(told.config(&seal), Ok(whole.clone()));
        assert!(told.config(&Seal::keyed(&[2; 32])).is_err());
        assert!(told.config(&Seal::PLAIN).is_err());
        // How long the label is cannot be seen.
        let mut other = whole.clone();
        other.about.label = Some("x".repeat(99));
        assert_eq!(encode(&other, &seal).0.len(), bytes.len());
        // What is in the open is what is sealed.
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("ext4", "squashfs"),
            ("amd64", "arm64"),
            (&size.to_string(), "4096"),
        ] {
            let told = Told::decode(text.replace(from, to).as_bytes()).unwrap();
            assert!(told.config(&seal).unwrap_err().contains("in the open"), "{to}");
        }
    }

    #[test]
    fn a_key_without_a_seal_is_refused() {
        let plain = encode(&config(&Seal::PLAIN), &Seal::PLAIN).0;
        let told = Told::decode(&plain).unwrap();
        assert_eq!(told.config(&Seal::PLAIN), Ok(config(&Seal::PLAIN)));
        let bare = serde_json::to_vec(&config(&Seal::keyed(&[1; 32]))).unwrap();
        assert!(Told::decode(&bare).unwrap_err().contains("is not sealed"));
    }

    #[test]
    fn lengths_are_rounded_by_an_eighth_at_most() {
        for len in [
            0,
            1,
            4096,
            5000,
            1 << 20,
            (1 << 30) + 1,
            1_234_567 * 4096,
            u64::MAX - 1,
        ] {
            let rounded = coarse(len);
            assert!(
                rounded >= len && rounded - len <= (len / 8).max(4096),
                "{len}: {rounded}"
            );
            assert_eq!(coarse(rounded), rounded, "{len}");
        }
        assert_eq!(coarse((1 << 30) + 1), coarse((1 << 30) + (1 << 27)));
    }
}
