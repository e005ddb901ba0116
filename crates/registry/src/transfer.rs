//! Long answers, from somewhere on, across connections that break.
#![deny(clippy::as_conversions)]

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Response, header};

use crate::address::shown;
use crate::attempts::{Attempts, Failure, transport};
use crate::error::RegistryError;

/// A transfer that brought this much has moved on; its earlier failures are forgiven.
pub(crate) const PROGRESS: u64 = 64 << 10;
const CHUNK: usize = 128 << 10;

/// Some bytes of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The bytes, never none.
    pub bytes: &'a [u8],
    /// How many bytes the server says that the whole has.
    pub total: Option<u64>,
}

/// A blob or file from somewhere on.
pub(crate) enum Opened {
    Body {
        answer: Response<Body>,
        /// How many bytes of the answer come before what was asked for.
        skip: u64,
        /// How many bytes the server says that the whole has.
        total: Option<u64>,
    },
    /// The whole ends before.
    End,
}

/// What the answer to a request from `start` on holds.
pub(crate) fn opened(url: &str, start: u64, answer: Response<Body>) -> Result<Opened, Failure> {
    let text = |name| {
        let value = answer.headers().get(name)?;
        value.to_str().ok()
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let wrong_range = || {
        Failure::Final(RegistryError::Protocol {
            url: shown(url),
            problem: "the answer is of another range than we asked for",
        })
    };
    let (skip, total) = match answer.status().as_u16() {
        // Nothing is there from `start` on.
        416 => return Ok(Opened::End),
        206 => {
            let range = text(header::CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes "));
            let (range, total) = range
                .and_then(|range| range.split_once('/'))
                .ok_or_else(wrong_range)?;
            let from = range.split_once('-').and_then(|(from, _)| number(from));
            let skip = from.and_then(|from| start.checked_sub(from));
            (skip.ok_or_else(wrong_range)?, number(total))
        }
        _ => (start, text(header::CONTENT_LENGTH).and_then(number)),
    };
    Ok(Opened::Body { answer, skip, total })
}

/// Gives everything from `start` on to `sink`. Whoever promised `size` also wants to see what there is beyond.
pub(crate) fn transfer<E: From<RegistryError>>(
    mut attempts: Attempts<'_>,
    start: u64,
    size: Option<u64>,
    open: &dyn Fn(u64) -> Result<Opened, Failure>,
    sink: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut position = start;
    let mut buffer = vec![0; CHUNK];
    loop {
        let before = position;
        let failure = match open(position) {
            Ok(Opened::End) => return Ok(()),
            Ok(Opened::Body { answer, skip, total }) => {
                let mut body = answer.into_body().into_reader();
                let all = size.or(total).unwrap_or(u64::MAX);
                // Without a length the connection's end is the file's.
                let least = total.or(size).unwrap_or(0).min(all);
                let mut give = |bytes: &[u8]| sink(Piece { bytes, total });
                match copy(&mut body, skip, all, &mut position, &mut buffer, &mut give) {
                    // That it is shorter than promised is for others to say.
                    Ok(()) if position >= least => return Ok(()),
                    Ok(()) => transport(io::ErrorKind::UnexpectedEof.into()),
                    Err(CopyError::Read(error)) => transport(error),
                    Err(CopyError::Sink(error)) => return Err(error),
                }
            }
            Err(failure) => failure,
        };
        if position.saturating_sub(before) >= PROGRESS {
            attempts.progressed();
        }
        attempts.failed(failure)?;
    }
}

enum CopyError<E> {
    Read(io::Error),
    Sink(E),
}

/// Copies to the body's end, or until there is more than `size`, which the sink then refuses.
fn copy<E>(
    body: &mut impl Read,
    mut skip: u64,
    size: u64,
    position: &mut u64,
    buffer: &mut [u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), CopyError<E>> {
    loop {
        let len = match body.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // All is here; how the connection ends is of no interest.
            Err(_) if *position == size => return Ok(()),
            Err(error) => return Err(CopyError::Read(error)),
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(len);
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        skip = skip.saturating_sub(count(skipped));
        let fresh = &buffer[skipped..len];
        if !fresh.is_empty() {
            *position = position.saturating_add(count(fresh.len()));
            sink(fresh).map_err(CopyError::Sink)?;
        }
    }
}
