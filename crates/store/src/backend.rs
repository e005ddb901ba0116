//! What a store of images must be able to do: keep blobs and manifests by digest, and names.

use std::fmt;
use std::ops::Range;

use firebrick_digest::Digest;

use crate::error::StoreError;
use crate::index::Published;
use crate::manifest::Descriptor;
use crate::name::{Name, Tagged};
use crate::objects::Objects;

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The version that the name meant before, and keeps as an older one.
    pub previous: Option<Digest>,
    /// Whether looking and writing were one step. If not, a writer at the same moment may have been overtaken.
    pub atomic: bool,
}

/// A folder, a bucket or a registry. Blobs belong to the image of a name, since registries keep them apart by that.
///
/// Nothing that is given back is verified but its length; who asked for a digest checks it.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Where it is, as a user would write it.
    fn address(&self) -> &str;

    /// The length of a blob, or nothing where none is.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say.
    fn blob_size(&self, name: &Name, blob: &Digest) -> Result<Option<u64>, StoreError>;

    /// A part of a blob.
    ///
    /// # Errors
    /// [`StoreError`], also if the blob is not there or is shorter.
    fn read_blob(&self, name: &Name, blob: &Digest, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// Keeps a blob, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError`] if it is not there for sure.
    fn write_blob(&self, name: &Name, blob: &Digest, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Makes a blob that lies in the image `from` one of `name`, too, and says whether that went without sending it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn mount_blob(&self, name: &Name, blob: &Digest, from: &Name) -> Result<bool, StoreError>;

    /// A manifest, or nothing where none is.
    ///
    /// # Errors
    /// [`StoreError`], also if it has more than `limit` bytes.
    fn read_manifest(&self, name: &Name, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a manifest, whose blobs are there.
    ///
    /// # Errors
    /// [`StoreError`] if it is not there for sure.
    fn write_manifest(&self, name: &Name, digest: &Digest, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Every version of every name; of each name the current one first, then the others, last published first.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Unsupported`] from registries that do not list what they have.
    fn versions(&self) -> Result<Vec<Published>, StoreError>;

    /// The versions of one name and tag, the current one first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn history(&self, tagged: &Tagged) -> Result<Vec<Published>, StoreError>;

    /// Whether [`Objects::swap`] really looks, tried once; no where there are no objects.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be tried.
    fn can_swap(&self) -> Result<bool, StoreError>;

    /// The last collection of garbage that the names know of; 0 where they know of none, and where nobody collects from outside.
    ///
    /// # Errors
    /// [`StoreError`].
    fn epoch(&self) -> Result<u64, StoreError>;

    /// Begins another epoch: what was to be published or referred to in an earlier one is not.
    ///
    /// # Errors
    /// [`StoreError`].
    fn begin_epoch(&self, epoch: u64) -> Result<(), StoreError>;

    /// Makes a version the current one of its name, if this is still `epoch`; else nothing is changed or given. No other version is
    /// lost by it, whoever writes at the same time. [`crate::Claim::name`] is how to call it.
    ///
    /// # Errors
    /// [`StoreError`]; after one it is not known what the name means.
    fn publish(&self, published: &Published, epoch: u64) -> Result<Option<Replaced>, StoreError>;

    /// Removes the versions of a name that `which` picks, and says what they were. What they held stays until `gc`.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Shared`] from registries that remove an image with all its names only, where others than those are
    /// of the same image. Then nothing is removed.
    fn remove(&self, name: &Name, which: &dyn Fn(&Published) -> bool) -> Result<Vec<Published>, StoreError>;

    /// Takes entries for some digests away that are no version of any name; what names mean stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    fn forget(&self, entries: &[Digest]) -> Result<(), StoreError>;

    /// What was said about a manifest: signatures.
    ///
    /// # Errors
    /// [`StoreError`].
    fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>, StoreError>;

    /// Adds to what is said about a manifest, if this is still `epoch`, and says whether it was. `referrer` is the descriptor of a
    /// manifest that is written already.
    ///
    /// # Errors
    /// [`StoreError`].
    fn refer(
        &self,
        name: &Name,
        subject: &Digest,
        referrer: &Descriptor,
        epoch: u64,
    ) -> Result<bool, StoreError>;

    /// The objects below, where there are any: for garbage collection, and for images that lie there as they are.
    fn objects(&self) -> Option<&dyn Objects>;
}
