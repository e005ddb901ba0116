//! Keys in files.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use firebrick_trust::{PrivateKey, PublicKey};

use crate::talk::Talk;
use crate::text::quoted;

/// No key file is longer, in bytes.
const LEN_MAX: u64 = 64 << 10;

/// The private key in a file. Read before anything else happens: who cannot sign should send nothing.
pub(crate) fn private_key(path: &Path, talk: &Talk) -> anyhow::Result<PrivateKey> {
    let reading = || format!("cannot sign with the key {path:?}");
    let mode = std::fs::metadata(path).with_context(reading)?.mode();
    if mode & 0o077 != 0 {
        let path = quoted(path);
        talk.warn(&format!(
            "others may use the key {path}, and then sign as you do: chmod 600 {path}"
        ));
    }
    let text = read(path).with_context(reading)?;
    PrivateKey::from_pem(&text).with_context(reading)
}

/// The public key in a file.
pub(crate) fn public_key(path: &Path) -> anyhow::Result<PublicKey> {
    let reading = || format!("cannot use the key {path:?}");
    let text = read(path).with_context(reading)?;
    PublicKey::from_pem(&text).with_context(reading)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LEN_MAX + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LEN_MAX {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is too long for a key",
        )),
        false => Ok(text),
    }
}
