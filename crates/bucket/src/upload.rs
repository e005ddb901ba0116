//! Files that are written in parts, several at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use firebrick_store::ObjectError;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore as _, ObjectStoreExt as _, PutOptions, PutPayload};

use crate::bucket::{Bucket, broke_off};
use crate::error::{Attempt, Words};

/// The most parts of one object: S3's and Google's limit.
const PARTS: u64 = 10_000;
/// What is known when the last answer of an upload was lost.
const UNKNOWN: &str =
    "the store does not know the upload any more: it may have been finished, and its answer lost";

impl Bucket {
    pub(crate) async fn upload(
        &self,
        key: &str,
        file: &File,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ObjectError> {
        let attempt = self.attempt("write", key);
        let path = self.path(attempt)?;
        let len = file.metadata().map_err(|error| attempt.failed(error))?.len();
        let part = part_bytes(len, self.options.part_bytes);
        if len <= part {
            let payload = read(attempt, file, 0, len)?;
            let written = self
                .opened
                .patient
                .put_opts(&path, payload, PutOptions::default())
                .await;
            written.map_err(|error| attempt.error(&error))?;
            moved(len);
            return Ok(());
        }
        let mut upload = self.begin(attempt, &path).await?;
        let sent = self.parts(attempt, upload.as_mut(), file, len, part, moved).await;
        let sent = match sent {
            Ok(()) => match upload.complete().await {
                Ok(_) => Ok(()),
                // After an answer that was lost, the library asks once more for what is done by then.
                Err(object_store::Error::NotFound { .. }) => Err(attempt.failed(Words(UNKNOWN.to_owned()))),
                Err(error) => Err(attempt.error(&error)),
            },
            failed => failed,
        };
        if sent.is_err() {
            // What cannot be removed now is left to the bucket's own rules; the first error is the one that tells.
            let _ = upload.abort().await;
        }
        sent?;
        self.saw();
        Ok(())
    }

    async fn begin(
        &self,
        attempt: Attempt<'_>,
        path: &Path,
    ) -> Result<Box<dyn MultipartUpload>, ObjectError> {
        let mut waits = self.options.waits();
        loop {
            match (self.opened.patient.put_multipart(path).await, waits.next()) {
                (Ok(upload), _) => return Ok(upload),
                // The name of an upload was lost on the way: it stays empty, and another is begun.
                (Err(error), Some(wait)) if broke_off(&error) => tokio::time::sleep(wait).await,
                (Err(error), _) => return Err(attempt.error(&error)),
            }
        }
    }

    /// Sends all parts, never more at a time than fit in memory.
    async fn parts(
        &self,
        attempt: Attempt<'_>,
        upload: &mut dyn MultipartUpload,
        file: &File,
        len: u64,
        part: u64,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ObjectError> {
        let mut under_way = FuturesUnordered::new();
        let mut at = 0;
        loop {
            while at < len && under_way.len() < self.options.parallel.max(1) {
                let size = part.min(len.saturating_sub(at));
                // The library numbers the parts as they are begun.
                let sent = upload.put_part(read(attempt, file, at, size)?);
                under_way.push(async move { sent.await.map(|()| size) });
                at = at.saturating_add(size);
            }
            match under_way.next().await {
                None => return Ok(()),
                Some(sent) => moved(sent.map_err(|error| attempt.error(&error))?),
            }
        }
    }
}

/// The size of a part, in whole MiB where it has to grow.
fn part_bytes(len: u64, wanted: u64) -> u64 {
    let least = len.div_ceil(PARTS).div_ceil(1 << 20).saturating_mul(1 << 20);
    wanted.max(1).max(if len.div_ceil(wanted.max(1)) > PARTS {
        least
    } else {
        1
    })
}

fn read(attempt: Attempt<'_>, file: &File, at: u64, len: u64) -> Result<PutPayload, ObjectError> {
    let len = usize::try_from(len).map_err(|error| attempt.failed(error))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at)
        .map_err(|error| attempt.failed(error))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_with_the_file() {
        const MIB: u64 = 1 << 20;
        for (len, wanted, expected) in [
            (0, 8 * MIB, 8 * MIB),
            (80_000 * MIB, 8 * MIB, 8 * MIB),
            (80_000 * MIB + 1, 8 * MIB, 9 * MIB),
            (5 << 40, 8 * MIB, 525 * MIB),
            (10, 0, 1),
        ] {
            let part = part_bytes(len, wanted);
            assert_eq!(part, expected, "{len} {wanted}");
            assert!(len.div_ceil(part) <= PARTS);
        }
    }
}
