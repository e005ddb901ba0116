//! Bodies of requests and answers, watched: what moves, and that it does not go on for ever.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use tokio::time::{Instant, Sleep};

use crate::trouble::Trouble;

/// How much of a request is handed on at once, in bytes: what is not yet taken shows that the other side still takes.
const FRAME_BYTES: usize = 64 << 10;

/// How many bytes of an answer come in the time that it may be silent, at least.
const LEAST: u64 = 64 << 10;

/// When a request last moved.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Clock {
    pub(crate) fn start(limit: Duration) -> Clock {
        let last = Arc::new(Mutex::new(Instant::now()));
        Clock { last, limit }
    }

    fn moved(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn end(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.limit
    }

    /// What comes of `answer`, or `None` once nothing has moved for too long.
    pub(crate) async fn unless_silent<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout_at(self.end(), answer.as_mut()).await {
                return Some(answer);
            }
            if self.end() <= Instant::now() {
                return None;
            }
        }
    }
}

/// A request's body in small frames, each of which is a sign of life.
#[derive(Debug)]
pub(crate) struct Sent {
    inner: HttpRequestBody,
    /// What of the inner's last frame is left.
    rest: Bytes,
    clock: Clock,
}

impl Sent {
    pub(crate) fn new(inner: HttpRequestBody, clock: Clock) -> Sent {
        let rest = Bytes::new();
        Sent { inner, rest, clock }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.clock.moved();
        while self.rest.is_empty() {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                other => return other,
            }
        }
        let len = self.rest.len().min(FRAME_BYTES);
        let frame = self.rest.split_to(len);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self
            .inner
            .size_hint()
            .lower()
            .saturating_add(self.rest.len() as u64);
        SizeHint::with_exact(left)
    }
}

/// An answer's body, that may neither pause for long nor be longer than a limit.
#[derive(Debug)]
pub(crate) struct Received {
    inner: reqwest::Body,
    endpoint: String,
    silence: Duration,
    until: Pin<Box<Sleep>>,
    /// When the stretch of time began in which [`LEAST`] bytes are to come, and how many did.
    began: Instant,
    came: u64,
    /// How many bytes may still come, of how many.
    left: Option<(u64, u64)>,
}

impl Received {
    pub(crate) fn new(
        inner: reqwest::Body,
        endpoint: String,
        silence: Duration,
        limit: Option<u64>,
    ) -> Received {
        Received {
            inner,
            endpoint,
            silence,
            until: Box::pin(tokio::time::sleep(silence)),
            began: Instant::now(),
            came: 0,
            left: limit.map(|limit| (limit, limit)),
        }
    }

    /// Sees that what comes comes fast enough.
    fn pace(&mut self, len: u64) -> Result<(), HttpError> {
        let now = Instant::now();
        self.until.as_mut().reset(now + self.silence);
        self.came = self.came.saturating_add(len);
        if now.duration_since(self.began) < self.silence {
            return Ok(());
        }
        if self.came < LEAST {
            let trouble = Trouble::Slow {
                endpoint: self.endpoint.clone(),
                bytes: self.came,
                seconds: self.silence.as_secs(),
            };
            return Err(HttpError::new(HttpErrorKind::Timeout, trouble));
        }
        (self.began, self.came) = (now, 0);
        Ok(())
    }

    /// Counts a frame.
    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), HttpError> {
        self.pace(frame.data_ref().map_or(0, |data| data.len() as u64))?;
        let (Some(data), Some((left, limit))) = (frame.data_ref(), &mut self.left) else {
            return Ok(());
        };
        match left.checked_sub(data.len() as u64) {
            Some(less) => {
                *left = less;
                Ok(())
            }
            None => {
                let (endpoint, limit) = (self.endpoint.clone(), *limit);
                Err(HttpError::new(
                    HttpErrorKind::Unknown,
                    Trouble::TooMuch { endpoint, limit },
                ))
            }
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.take(&frame).map(|()| frame))),
            Poll::Ready(Some(Err(source))) => {
                let endpoint = self.endpoint.clone();
                let source = source.without_url();
                let error = HttpError::new(HttpErrorKind::Interrupted, Trouble::Broken { endpoint, source });
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.until.as_mut().poll(cx).map(|()| {
                let trouble = Trouble::Silent {
                    endpoint: self.endpoint.clone(),
                    seconds: self.silence.as_secs(),
                };
                Some(Err(HttpError::new(HttpErrorKind::Timeout, trouble)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
