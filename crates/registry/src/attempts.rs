//! What a failure means: whether another try may succeed, and how long to wait before it.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use ureq::Body;
use ureq::http::{Response, header};

use crate::address::shown;
use crate::client::Client;
use crate::error::RegistryError;
use crate::options::Retrying;

/// Why an exchange failed.
pub(crate) enum Failure {
    /// Another try may succeed.
    Passing {
        cause: Cause,
        retry_after: Option<Duration>,
    },
    /// Another try would fail too.
    Final(RegistryError),
}

pub(crate) enum Cause {
    Transport(Box<dyn std::error::Error + Send + Sync>),
    Status { status: u16, message: String },
}

/// Counts the failures of one thing in a row, and waits between tries.
pub(crate) struct Attempts<'a> {
    client: &'a Client,
    action: &'static str,
    url: &'a str,
    failures: u32,
    /// When the first of them began.
    began: Instant,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(client: &'a Client, action: &'static str, url: &'a str) -> Attempts<'a> {
        Attempts {
            client,
            action,
            url,
            failures: 0,
            began: Instant::now(),
        }
    }

    /// The thing moved on: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
        self.began = Instant::now();
    }

    /// Waits before another try.
    ///
    /// # Errors
    /// The failure itself, if another try is pointless.
    pub(crate) fn failed(&mut self, failure: Failure) -> Result<(), RegistryError> {
        let (cause, retry_after) = match failure {
            Failure::Passing { cause, retry_after } => (cause, retry_after),
            Failure::Final(error) => return Err(error),
        };
        self.failures += 1;
        let retry = &self.client.retry;
        let url = shown(self.url);
        let delay = retry_after
            .unwrap_or(Duration::ZERO)
            .max(retry.delay(self.failures));
        // Another try may be silent, too. Who answers at all is bounded by the number of tries and what he may ask for.
        let end = self
            .began
            .elapsed()
            .saturating_add(delay)
            .saturating_add(self.client.patience);
        let is_late = matches!(cause, Cause::Transport(_)) && end > retry.limit;
        if self.failures >= retry.attempts || is_late {
            return Err(match cause {
                Cause::Transport(source) => RegistryError::Transport {
                    action: self.action,
                    url,
                    attempts: self.failures,
                    source,
                },
                Cause::Status { status, message } => RegistryError::Status { url, status, message },
            });
        }
        if let (Some(wait), Cause::Status { status, .. }) = (retry_after, &cause)
            && wait > retry.max_delay
        {
            let status = *status;
            return Err(RegistryError::Busy { url, status, wait });
        }
        let cause = match cause {
            Cause::Transport(error) => error.to_string(),
            Cause::Status { status, message } => format!("{status} {message}").trim_end().to_owned(),
        };
        (self.client.on_retry)(Retrying { url, cause, delay });
        std::thread::sleep(delay);
        Ok(())
    }
}

pub(crate) fn may_pass(error: &ureq::Error) -> bool {
    match error {
        // Whatever is wrong with a certificate now is wrong in a second.
        ureq::Error::Io(error) => !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => true,
        ureq::Error::Protocol(_) | ureq::Error::ConnectProxyFailed(_) => true,
        _ => false,
    }
}

pub(crate) fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let time = httpdate::parse_http_date(text).ok()?;
            Some(time.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
        }
    }
}

/// A connection that broke in the middle of an answer.
pub(crate) fn transport(error: io::Error) -> Failure {
    Failure::Passing {
        cause: Cause::Transport(Box::new(error)),
        retry_after: None,
    }
}
