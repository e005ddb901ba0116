//! An object's bytes, whole or a range of them, however often the connection breaks.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;

use firebrick_store::{ObjectError, Version};
use futures_util::StreamExt as _;
use object_store::{GetOptions, GetRange, ObjectStore as _};

use crate::bucket::{Bucket, broke_off};
use crate::error::{Attempt, Words, trouble};
use crate::trouble::Trouble;

/// A try that brings as much as this, in bytes, does not count as one that failed.
const PROGRESS: u64 = 256 << 10;

/// Takes bytes in their order.
type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), ObjectError> + 'a;

/// How far a transfer is.
struct Transfer<'a> {
    attempt: Attempt<'a>,
    /// The first byte that is wanted.
    start: u64,
    is_whole: bool,
    /// The next byte of the object that is wanted.
    at: u64,
    /// The first that is not, once it is known.
    end: Option<u64>,
    /// The most bytes that are taken of a whole object.
    limit: Option<u64>,
    /// What the first answer said of the content, so that pieces of two contents are never joined.
    e_tag: Option<String>,
    version: Version,
}

impl Bucket {
    /// Gives the bytes of `range`, or of the whole object where there is none, to `sink`. The answer is the content's version.
    pub(crate) async fn fetch(
        &self,
        attempt: Attempt<'_>,
        range: Option<Range<u64>>,
        limit: Option<u64>,
        sink: &mut Sink<'_>,
    ) -> Result<Version, ObjectError> {
        let start = range.as_ref().map_or(0, |range| range.start);
        let mut transfer = Transfer {
            attempt,
            start,
            at: start,
            is_whole: range.is_none(),
            end: range.map(|range| range.end),
            limit,
            e_tag: None,
            version: Version(String::new()),
        };
        let mut waits = self.options.waits();
        loop {
            let before = transfer.at;
            let broken = self.piece(&mut transfer, sink).await?;
            let Some(broken) = broken else {
                return Ok(transfer.version);
            };
            if transfer.at.saturating_sub(before) >= PROGRESS {
                waits = self.options.waits();
            }
            match waits.next() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(broken),
            }
        }
    }

    /// One request for what is left. An answer that ended early is an error inside of the result: asking on may help.
    async fn piece(
        &self,
        transfer: &mut Transfer<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Option<ObjectError>, ObjectError> {
        let (attempt, start) = (transfer.attempt, transfer.start);
        let path = self.path(attempt)?;
        let options = GetOptions {
            range: match transfer.end {
                Some(end) if !transfer.is_whole || transfer.at > 0 => {
                    Some(GetRange::Bounded(transfer.at..end))
                }
                _ => None,
            },
            if_match: transfer.e_tag.clone(),
            ..GetOptions::default()
        };
        let found = self.opened.patient.get_opts(&path, options).await;
        let found = match found {
            Ok(found) => found,
            Err(object_store::Error::Precondition { .. }) if transfer.e_tag.is_some() => {
                return Err(attempt.failed(Words("it was overwritten while it was read".to_owned())));
            }
            Err(error) => return Err(self.past_the_end(transfer, &error).await),
        };
        self.saw();
        let size = found.meta.size;
        if let Some(limit) = transfer.limit.filter(|limit| size > *limit) {
            return Err(attempt.too_large(limit));
        }
        let end = *transfer.end.get_or_insert(size);
        if size < end {
            return Err(attempt.short(end.saturating_sub(start), size.saturating_sub(start)));
        }
        transfer.e_tag = transfer.e_tag.take().or_else(|| found.meta.e_tag.clone());
        transfer.version = self.version(found.meta.e_tag.clone(), found.meta.version.clone());
        let mut stream = found.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) if broke_off(&error) => return Ok(Some(attempt.error(&error))),
                Err(error) => return Err(attempt.error(&error)),
            };
            let after = transfer.at.saturating_add(piece.len() as u64);
            if after > end {
                return Err(attempt.failed(Words("it sends more bytes than the object has".to_owned())));
            }
            sink(&piece)?;
            transfer.at = after;
        }
        let wanted = end.saturating_sub(start);
        let short = attempt.short(wanted, transfer.at.saturating_sub(start));
        Ok((transfer.at < end).then_some(short))
    }

    /// The error for a request that came to nothing: stores have several ways to say that a range lies behind the end.
    async fn past_the_end(&self, transfer: &Transfer<'_>, error: &object_store::Error) -> ObjectError {
        let (attempt, start) = (transfer.attempt, transfer.start);
        let is_odd = match trouble(error) {
            Some(Trouble::Refused(refusal)) => refusal.status == 416,
            Some(_) => false,
            None => matches!(error, object_store::Error::Generic { .. }),
        };
        if is_odd
            && let Some(end) = transfer.end
            && let Ok(Some(found)) = self.head(attempt.key).await
            && found.size < end
        {
            return attempt.short(end.saturating_sub(start), found.size.saturating_sub(start));
        }
        attempt.error(error)
    }

    /// Appends the whole of an object to a file.
    pub(crate) async fn download(
        &self,
        key: &str,
        file: &File,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ObjectError> {
        let attempt = self.attempt("read", key);
        let mut file = file;
        let sink = &mut |piece: &[u8]| {
            file.write_all(piece).map_err(|error| attempt.failed(error))?;
            moved(piece.len() as u64);
            Ok(())
        };
        self.fetch(attempt, None, None, sink).await?;
        Ok(())
    }
}
