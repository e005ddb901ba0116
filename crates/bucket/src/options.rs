//! What the caller says of the way to a bucket: variables that it read, proxy, authorities, patience.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How a bucket is reached. This crate reads no environment: what a provider's variables say comes in here.
#[derive(Clone)]
pub struct Options {
    /// Environment variables, as name and value, maybe all of them. Which are looked at: `docs/buckets.md`. `HOME` leads to the
    /// files of the providers' own tools.
    pub variables: Vec<(String, String)>,
    /// An HTTP proxy. Loopback and the addresses where machines find their credentials are never asked through it.
    pub proxy: Option<Proxy>,
    /// PEM files of certificate authorities, trusted besides those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Whether the system's certificate authorities are trusted.
    pub system_ca: bool,
    /// Whether an endpoint that is not loopback's may be spoken to without TLS.
    pub plain_http: bool,
    /// How failures that may pass are met.
    pub retry: Retry,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long neither side may say anything while a request is under way; and in that time 64 KiB of an answer come, or its end.
    pub silence: Duration,
    /// How many parts of one file are under way at once when it is written; each is held in memory.
    pub parallel: usize,
    /// The size of such a part in bytes. It grows where a file would have more than 10,000 of them; a store may want 5 MiB at least.
    pub part_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            variables: Vec::new(),
            proxy: None,
            ca_files: Vec::new(),
            system_ca: true,
            plain_http: false,
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            parallel: 4,
            part_bytes: 8 << 20,
        }
    }
}

/// Variables hold secrets: of them only the names are told.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Options")
            .field("variables", &names)
            .field("proxy", &self.proxy)
            .field("ca_files", &self.ca_files)
            .field("system_ca", &self.system_ca)
            .field("plain_http", &self.plain_http)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The first of the variables that is set and not empty.
    pub(crate) fn variable(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| {
            let found = self.variables.iter().find(|(known, _)| known == name);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        })
    }

    /// The waits before tries of one thing, the first of which begins now.
    pub(crate) fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        self.retry.waits(self.silence)
    }

    /// Whether a variable says yes.
    pub(crate) fn says_yes(&self, names: &[&str]) -> bool {
        self.variable(names)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }
}

/// An HTTP proxy: by `CONNECT` where the endpoint has TLS.
#[derive(Clone)]
pub struct Proxy {
    /// Its address, e.g. `http://proxy:3128`, maybe with user and password.
    pub url: String,
    /// Hosts that are asked directly, as the `NO_PROXY` variable lists them.
    pub no_proxy: Vec<String>,
}

impl Proxy {
    /// Its address without user and password.
    pub(crate) fn host(&self) -> &str {
        self.url.rsplit('@').next().unwrap_or("")
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// How often and how patiently something that may pass is tried again. A server's `Retry-After` comes on top.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How often after the first try.
    pub retries: usize,
    /// The first wait.
    pub first_wait: Duration,
    /// The longest wait; each may be up to twice as long as the one before.
    pub longest_wait: Duration,
    /// Nothing is tried again that could end after this time if nothing comes. A `Retry-After` that is longer ends the trying at once.
    pub limit: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            retries: 6,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
            limit: Duration::from_secs(150),
        }
    }
}

impl Retry {
    /// The waits, one for every try after the first, which begins now. There are none any more once another try, which may be silent for
    /// `silence`, could end behind the limit.
    fn waits(&self, silence: Duration) -> impl Iterator<Item = Duration> + use<> {
        let (longest, limit) = (self.longest_wait, self.limit);
        let began = Instant::now();
        std::iter::successors(Some(self.first_wait.min(longest)), move |wait| {
            Some(wait.saturating_mul(2).min(longest))
        })
        .take(self.retries)
        .take_while(move |wait| {
            let end = began.elapsed().saturating_add(*wait).saturating_add(silence);
            end <= limit
        })
    }

    /// How long the library may go on beginning tries.
    pub(crate) fn library_limit(&self, silence: Duration) -> Duration {
        self.limit.saturating_sub(silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_has_no_secret() {
        let options = Options {
            variables: vec![("AWS_SECRET_ACCESS_KEY".into(), "s3cret".into())],
            proxy: Some(Proxy {
                url: "http://joe:s3cret@proxy:3128".into(),
                no_proxy: Vec::new(),
            }),
            ..Options::default()
        };
        let text = format!("{options:?}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(
            text.contains("proxy:3128") && text.contains("AWS_SECRET_ACCESS_KEY"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_variable_is_none() {
        let variables = [("A", ""), ("B", "b"), ("C", "True")];
        let options = Options {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Options::default()
        };
        assert_eq!(options.variable(&["A", "B"]), Some("b"));
        assert_eq!(options.variable(&["A", "Z"]), None);
        assert!(options.says_yes(&["C"]) && !options.says_yes(&["B"]));
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let retry = Retry {
            retries: 4,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(3),
            limit: Duration::MAX,
        };
        let waits: Vec<u64> = retry.waits(Duration::ZERO).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 3, 3]);
        // None after which there would be no time for another try.
        let retry = Retry {
            limit: Duration::from_secs(62),
            ..retry
        };
        assert_eq!(retry.waits(Duration::from_secs(60)).count(), 1);
        assert_eq!(retry.library_limit(Duration::from_secs(60)).as_secs(), 2);
    }
}
