//! Images as they are, each one object: what hosts without firebrick put into buckets and take out of them.
//!
//! Beside an object lies its digest, as `sha256sum` writes it: `rootfs-python.ext4.sha256`. Whoever lacks it gets the object unverified,
//! and is told.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::time::SystemTime;

use firebrick_digest::{Digest, Hasher};

use crate::error::StoreError;
use crate::objects::Objects;
use crate::store::{Progress, Store};

mod fetch;

pub use fetch::PlainFetched;

/// Longest digest file.
const DIGEST_MAX: u64 = 4096;

/// A whole object that is an image or a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainImage {
    /// Its key: `rootfs-python.ext4`, `vmlinux`.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: SystemTime,
}

impl Store {
    pub(crate) fn plain_objects(&self) -> Result<&dyn Objects, StoreError> {
        self.backend().objects().ok_or_else(|| StoreError::Unsupported {
            address: self.backend().address().to_owned(),
            action: "keep plain files: registries keep images in chunks only",
        })
    }

    /// The whole images and kernels of the store; none where it cannot keep such.
    ///
    /// # Errors
    /// [`StoreError::Object`] if it cannot be listed.
    pub fn plain_images(&self) -> Result<Vec<PlainImage>, StoreError> {
        let Some(objects) = self.backend().objects() else {
            return Ok(Vec::new());
        };
        let is_plain = |key: &str| key == "vmlinux" || is_image(key);
        // Blobs are many, and lie deeper.
        let entries = objects
            .list_top()?
            .into_iter()
            .filter(|entry| is_plain(&entry.key));
        Ok(entries
            .map(|entry| PlainImage {
                key: entry.key,
                size: entry.len,
                modified: entry.modified,
            })
            .collect())
    }

    /// Puts a file into the store as it is, with its digest. Gives the digest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_plain(&self, key: &str, file: &File, path: &Path) -> Result<Digest, StoreError> {
        let objects = self.plain_objects()?;
        let failed = |source| StoreError::File {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let of = file.metadata().map_err(failed)?.len();
        let digest = digest(file).map_err(failed)?;
        let sent = std::sync::atomic::AtomicU64::new(0);
        objects.put_file(key, file, &|len| {
            let done = sent.fetch_add(len, std::sync::atomic::Ordering::Relaxed) + len;
            (self.progress)(Progress::Upload { done, of, sent: done });
        })?;
        objects.put(
            &digest_key(key),
            format!("{}  {key}\n", digest.hex()).into_bytes(),
        )?;
        Ok(digest)
    }

    /// Removes a whole object and its digest, and tells whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_plain(&self, key: &str) -> Result<bool, StoreError> {
        let objects = self.plain_objects()?;
        let was_there = objects.size(key)?.is_some();
        objects.delete(key)?;
        objects.delete(&digest_key(key))?;
        Ok(was_there)
    }

    /// The digest beside a whole object, if there is one.
    pub(crate) fn plain_digest(&self, key: &str) -> Result<Option<Digest>, StoreError> {
        let found = self.plain_objects()?.get(&digest_key(key), DIGEST_MAX)?;
        let read = |(text, _): (Vec<u8>, _)| {
            parse_digest(&text).ok_or_else(|| self.bad_digest(key, "it is no SHA-256"))
        };
        found.map(read).transpose()
    }

    fn bad_digest(&self, key: &str, problem: &str) -> StoreError {
        StoreError::Corrupt {
            address: self.backend().address().to_owned(),
            what: digest_key(key),
            problem: problem.to_owned(),
        }
    }
}

fn digest_key(key: &str) -> String {
    format!("{key}.sha256")
}

fn is_image(key: &str) -> bool {
    let name = |format: &str| {
        key.strip_prefix("rootfs-")?
            .strip_suffix(format)?
            .strip_suffix('.')
            .filter(|name| !name.is_empty())
    };
    name("ext4").or_else(|| name("squashfs")).is_some()
}

/// The digest in a line of `sha256sum`, or alone.
fn parse_digest(text: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(text).ok()?;
    let word = text.split_whitespace().next()?;
    format!("sha256:{}", word.strip_prefix("sha256:").unwrap_or(word))
        .parse()
        .ok()
}

fn digest(file: &File) -> io::Result<Digest> {
    let mut file = file;
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut piece = vec![0; 1 << 20];
    let mut hasher = Hasher::new();
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&piece[..len]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_and_kernels_are_listed() {
        for (key, expected) in [
            ("rootfs-python.ext4", true),
            ("rootfs-x.squashfs", true),
            ("rootfs-.ext4", false),
            ("rootfs-x.ext4.sha256", false),
            ("x.ext4", false),
        ] {
            assert_eq!(is_image(key), expected, "{key}");
        }
    }

    #[test]
    fn digests_are_read_as_others_write_them() {
        let digest = Digest::of(b"x");
        for text in [
            digest.to_string(),
            digest.hex(),
            format!("{}  rootfs-x.ext4\n", digest.hex()),
        ] {
            assert_eq!(parse_digest(text.as_bytes()), Some(digest));
        }
        assert_eq!(parse_digest(b"abc"), None);
    }
}
