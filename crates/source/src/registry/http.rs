//! One HTTP exchange: the connection, redirects, and what a failure means.
//!
//! `Authorization` goes only to the registry that asked for it: a redirect to another scheme, host or port drops it.
//! Plain HTTP is spoken only with hosts for which that is allowed, also behind redirects.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::http::{Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::error::SourceError;
use crate::image::file_error;
use crate::options::{Event, RegistryOptions, Retry};

const REDIRECTS: usize = 5;
const MESSAGE_LIMIT: u64 = 64 << 10;
const CA_LIMIT: u64 = 16 << 20;
/// Where distributions keep their certificate authorities.
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why an exchange failed.
pub(crate) enum Failure {
    /// Another try may succeed.
    Passing {
        cause: Cause,
        retry_after: Option<Duration>,
    },
    /// Another try would fail too.
    Final(SourceError),
}

pub(crate) enum Cause {
    Transport(Box<dyn std::error::Error + Send + Sync>),
    Status { status: u16, message: String },
}

/// A client for one registry and those it redirects to.
pub(crate) struct Http {
    agent: Agent,
    plain_http: Vec<String>,
    retry: Retry,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Http {
    pub(crate) fn new(
        options: &RegistryOptions,
        events: Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Http, SourceError> {
        let proxy = options.proxy.as_ref().map(proxy).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(certificates(options)?)))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(concat!("firebrick/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .timeout_per_write(Some(options.read_timeout))
            .build();
        Ok(Http {
            agent: Agent::new_with_config(config),
            plain_http: options.plain_http.clone(),
            retry: options.retry,
            events,
        })
    }

    /// Finds out how `registry` is spoken to: `https://` or `http://` and its host.
    pub(crate) fn origin(&self, registry: &str) -> String {
        let host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let secure = format!("https://{host}");
        let plain = format!("http://{host}");
        if self.plain_http.iter().any(|allowed| allowed == registry) {
            return plain;
        }
        if !is_loopback(host) {
            return secure;
        }
        // A registry on this machine may speak either. Nothing secret is sent to find out.
        match self.agent.get(format!("{plain}/v2/")).call() {
            Ok(answer) if answer.status() == 400 => secure,
            Ok(_) => plain,
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => plain,
            Err(ureq::Error::Protocol(_) | ureq::Error::Io(_)) => {
                match self.agent.get(format!("{secure}/v2/")).call() {
                    Ok(_) | Err(ureq::Error::Rustls(_) | ureq::Error::Tls(_)) => secure,
                    Err(_) => plain,
                }
            }
            Err(_) => plain,
        }
    }

    pub(crate) fn attempts<'a>(&'a self, url: &'a str) -> Attempts<'a> {
        Attempts {
            http: self,
            url,
            failures: 0,
        }
    }

    /// Refuses addresses that are neither HTTPS nor allowed to be plain.
    pub(crate) fn check_scheme(&self, url: &str) -> Result<Uri, SourceError> {
        let protocol = |problem| SourceError::Protocol {
            url: shown(url),
            problem,
        };
        let uri: Uri = url.parse().map_err(|_| protocol("the address is malformed"))?;
        let host = uri.authority().map(|authority| authority.as_str()).unwrap_or("");
        if host.is_empty() || host.contains('@') {
            return Err(protocol("the address has no proper host"));
        }
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if is_loopback(host) || self.plain_http.iter().any(|allowed| allowed == host) => {
                Ok(uri)
            }
            Some("http") => Err(protocol("plain HTTP is not allowed for this host")),
            _ => Err(protocol("the address is neither https nor http")),
        }
    }

    /// Sends a GET and follows redirects. Statuses of failure that may pass are failures here; others, also 401 and
    /// 404, are answers.
    pub(crate) fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut uri = self.check_scheme(url).map_err(Failure::Final)?;
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(uri.clone());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            let answer = self.check(&uri, request.call())?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let protocol = |problem| {
                Failure::Final(SourceError::Protocol {
                    url: shown(&uri.to_string()),
                    problem,
                })
            };
            let location = answer
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let target = location
                .and_then(|location| join(&uri, location))
                .ok_or_else(|| protocol("the redirect leads nowhere"))?;
            let next = self.check_scheme(&target).map_err(Failure::Final)?;
            if (next.scheme(), next.authority()) != (uri.scheme(), uri.authority()) {
                authorization = None;
            }
            uri = next;
        }
        Err(Failure::Final(SourceError::Protocol {
            url: shown(url),
            problem: "more than 5 redirects in a row",
        }))
    }

    /// Posts a form; never follows redirects, for forms carry secrets.
    pub(crate) fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let uri = self.check_scheme(url).map_err(Failure::Final)?;
        let sent = self.agent.post(uri.clone()).send_form(form.iter().copied());
        self.check(&uri, sent)
    }

    fn check(
        &self,
        uri: &Uri,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) if may_pass(&error) => {
                return Err(Failure::Passing {
                    cause: Cause::Transport(Box::new(error)),
                    retry_after: None,
                });
            }
            Err(error) => {
                return Err(Failure::Final(SourceError::Transport {
                    url: shown(&uri.to_string()),
                    attempts: 1,
                    source: Box::new(error),
                }));
            }
        };
        let status = answer.status().as_u16();
        if !matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
            return Ok(answer);
        }
        let retry_after = retry_after(&answer);
        Err(Failure::Passing {
            cause: Cause::Status {
                status,
                message: message(&mut answer),
            },
            retry_after,
        })
    }
}

/// Counts the failures of one thing in a row, and waits between tries.
pub(crate) struct Attempts<'a> {
    http: &'a Http,
    url: &'a str,
    failures: u32,
}

impl Attempts<'_> {
    /// The thing moved on: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before another try.
    ///
    /// # Errors
    /// The failure itself, if another try is pointless.
    pub(crate) fn failed(&mut self, failure: Failure) -> Result<(), SourceError> {
        let (cause, retry_after) = match failure {
            Failure::Passing { cause, retry_after } => (cause, retry_after),
            Failure::Final(error) => return Err(error),
        };
        self.failures += 1;
        let retry = &self.http.retry;
        let url = shown(self.url);
        if self.failures >= retry.attempts {
            return Err(match cause {
                Cause::Transport(source) => SourceError::Transport {
                    url,
                    attempts: self.failures,
                    source,
                },
                Cause::Status { status, message } => SourceError::Status { url, status, message },
            });
        }
        if let (Some(wait), Cause::Status { status, .. }) = (retry_after, &cause)
            && wait > retry.max_delay
        {
            let status = *status;
            return Err(SourceError::Busy { url, status, wait });
        }
        let delay = retry_after
            .unwrap_or(Duration::ZERO)
            .max(retry.delay(self.failures));
        let cause = match cause {
            Cause::Transport(error) => error.to_string(),
            Cause::Status { status, message } => format!("{status} {message}").trim_end().to_owned(),
        };
        (self.http.events)(Event::Retry { url, cause, delay });
        std::thread::sleep(delay);
        Ok(())
    }
}

fn may_pass(error: &ureq::Error) -> bool {
    match error {
        // Whatever is wrong with a certificate now is wrong in a second.
        ureq::Error::Io(error) => !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => true,
        ureq::Error::Protocol(_) | ureq::Error::ConnectProxyFailed(_) => true,
        _ => false,
    }
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let time = httpdate::parse_http_date(text).ok()?;
            Some(time.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
        }
    }
}

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words about a failure, made safe to print.
pub(crate) fn message(answer: &mut Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = answer
        .body_mut()
        .as_reader()
        .take(MESSAGE_LIMIT)
        .read_to_end(&mut bytes);
    let words = match serde_json::from_slice::<ErrorDocument>(&bytes) {
        Ok(document) => document
            .errors
            .iter()
            .take(3)
            .map(|error| format!("{} ({})", error.message, error.code))
            .collect::<Vec<String>>()
            .join("; "),
        Err(_) => String::new(),
    };
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// An address without its query, which may hold a signature that lets others in.
pub(crate) fn shown(url: &str) -> String {
    url.split(['?', '#'])
        .next()
        .unwrap_or("")
        .chars()
        .take(300)
        .collect()
}

/// Whether a host with maybe a port is one of the names of this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// Resolves a redirect's target (<https://www.rfc-editor.org/rfc/rfc3986#section-5>, without dot segments, which
/// servers resolve themselves).
fn join(base: &Uri, location: &str) -> Option<String> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if location.is_empty() {
        return None;
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let folder = base
        .path()
        .rfind('/')
        .and_then(|slash| base.path().get(..=slash))
        .unwrap_or("/");
    Some(format!("{scheme}://{authority}{folder}{location}"))
}

fn proxy(option: &crate::options::Proxy) -> Result<ureq::Proxy, SourceError> {
    let unusable = || SourceError::Option {
        option: "proxy",
        value: option.url.rsplit('@').next().unwrap_or("").to_owned(),
    };
    let parsed = ureq::Proxy::new(&option.url).map_err(|_| unusable())?;
    if !matches!(
        parsed.protocol(),
        ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https
    ) {
        return Err(unusable());
    }
    let mut builder = ureq::Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port())
        .resolve_target(false);
    if let Some(username) = parsed.username() {
        builder = builder.username(username);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in &option.no_proxy {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(|_| unusable())
}

fn certificates(options: &RegistryOptions) -> Result<Vec<Certificate<'static>>, SourceError> {
    let mut all = Vec::new();
    if options.system_ca
        && let Some(bundle) = SYSTEM_CA.iter().map(Path::new).find(|path| path.exists())
    {
        // A bundle may hold a certificate that we cannot read; the others still count.
        all.extend(read_pem(bundle)?);
    }
    for path in &options.ca_files {
        let found = read_pem(path)?;
        if found.is_empty() {
            return Err(SourceError::Option {
                option: "CA file",
                value: path.display().to_string(),
            });
        }
        all.extend(found);
    }
    Ok(all)
}

fn read_pem(path: &Path) -> Result<Vec<Certificate<'static>>, SourceError> {
    let error = |source| file_error("read", path, source);
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(error)?
        .take(CA_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    Ok(ureq::tls::parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets() {
        let base: Uri = "https://a.io:8443/v2/x/blobs/1?q".parse().unwrap();
        for (location, expected) in [
            ("https://b.io/y?s=1#f", Some("https://b.io/y?s=1")),
            ("//b.io/y", Some("https://b.io/y")),
            ("/y", Some("https://a.io:8443/y")),
            ("y?z", Some("https://a.io:8443/v2/x/blobs/y?z")),
            ("", None),
            ("#f", None),
        ] {
            assert_eq!(join(&base, location).as_deref(), expected, "{location:?}");
        }
    }

    #[test]
    fn loopback_is_by_name_only() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil.io",
            "127.0.0.1.evil.io:1",
            "127.0.0.2",
            "::1",
            "evil.io",
            "[::2]:5000",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn plain_http_needs_leave() {
        let options = RegistryOptions {
            plain_http: vec!["lab:5000".to_owned()],
            system_ca: false,
            ..RegistryOptions::default()
        };
        let http = Http::new(&options, Arc::new(|_| ())).unwrap();
        for url in ["https://a.io/x", "http://localhost:1/x", "http://lab:5000/x"] {
            assert!(http.check_scheme(url).is_ok(), "{url}");
        }
        for url in [
            "http://a.io/x",
            "http://lab/x",
            "ftp://a.io/x",
            "/x",
            "https://u:p@a.io/",
            "http://localhost:1@a.io/",
        ] {
            assert!(http.check_scheme(url).is_err(), "{url}");
        }
    }

    #[test]
    fn shown_addresses_hold_no_signature() {
        assert_eq!(shown("https://a.io/b?X-Amz-Signature=s3cret"), "https://a.io/b");
    }
}
