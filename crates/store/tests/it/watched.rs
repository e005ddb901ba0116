//! A store in a folder that counts what is read of it, and does not always give it.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use firebrick_digest::Digest;
use firebrick_store::{
    Backend, Descriptor, Folder, Layout, Name, Objects, Published, Replaced, StoreError, Tagged,
};

/// What happens to a request for a range of a blob before it is answered.
type Hook = dyn Fn(&Range<u64>) -> Result<(), StoreError> + Send + Sync;

/// What a test knows of a [`Watched`] store.
#[derive(Default)]
pub(crate) struct Watch {
    ranges: Mutex<Vec<Range<u64>>>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Watch {
    /// Ranges of blobs that were asked for since the last call.
    pub(crate) fn take(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.ranges.lock().unwrap())
    }

    /// From now on each request passes through `hook`.
    pub(crate) fn set(&self, hook: impl Fn(&Range<u64>) -> Result<(), StoreError> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }
}

pub(crate) struct Watched {
    inner: Layout<Folder>,
    watch: Arc<Watch>,
}

impl Watched {
    pub(crate) fn new(folder: &Path, watch: &Arc<Watch>) -> Watched {
        Watched {
            inner: Layout::new(Folder::new(folder)),
            watch: Arc::clone(watch),
        }
    }
}

/// What a store says that does not answer.
pub(crate) fn no_answer() -> StoreError {
    StoreError::Unsupported {
        address: "the test".to_owned(),
        action: "answer now",
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Backend for Watched {
    fn read_blob(&self, name: &Name, blob: &Digest, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.watch.ranges.lock().unwrap().push(range.clone());
        let hook = self.watch.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(&range)?;
        }
        self.inner.read_blob(name, blob, range)
    }

    fn address(&self) -> &str {
        self.inner.address()
    }

    fn blob_size(&self, name: &Name, blob: &Digest) -> Result<Option<u64>, StoreError> {
        self.inner.blob_size(name, blob)
    }

    fn write_blob(&self, name: &Name, blob: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.inner.write_blob(name, blob, bytes)
    }

    fn mount_blob(&self, name: &Name, blob: &Digest, from: &Name) -> Result<bool, StoreError> {
        self.inner.mount_blob(name, blob, from)
    }

    fn read_manifest(&self, name: &Name, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.read_manifest(name, digest, limit)
    }

    fn write_manifest(&self, name: &Name, digest: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.inner.write_manifest(name, digest, bytes)
    }

    fn versions(&self) -> Result<Vec<Published>, StoreError> {
        self.inner.versions()
    }

    fn history(&self, tagged: &Tagged) -> Result<Vec<Published>, StoreError> {
        self.inner.history(tagged)
    }

    fn can_swap(&self) -> Result<bool, StoreError> {
        self.inner.can_swap()
    }

    fn epoch(&self) -> Result<u64, StoreError> {
        self.inner.epoch()
    }

    fn begin_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        self.inner.begin_epoch(epoch)
    }

    fn publish(&self, published: &Published, epoch: u64) -> Result<Option<Replaced>, StoreError> {
        self.inner.publish(published, epoch)
    }

    fn remove(&self, name: &Name, which: &dyn Fn(&Published) -> bool) -> Result<Vec<Published>, StoreError> {
        self.inner.remove(name, which)
    }

    fn forget(&self, entries: &[Digest]) -> Result<(), StoreError> {
        self.inner.forget(entries)
    }

    fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        self.inner.referrers(name, subject)
    }

    fn refer(
        &self,
        name: &Name,
        subject: &Digest,
        referrer: &Descriptor,
        epoch: u64,
    ) -> Result<bool, StoreError> {
        self.inner.refer(name, subject, referrer, epoch)
    }

    fn objects(&self) -> Option<&dyn Objects> {
        self.inner.objects()
    }
}
