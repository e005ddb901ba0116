//! The HTTP below the library: where a request may go, how long it may be silent, and what an answer's refusal says.
//!
//! A request passes here on its way out and an answer on its way in, whoever of the library's parts asks: the store, or what
//! fetches credentials. What the library should try again it gets as it came, but for a body that is never longer than it can
//! rightly be; what trying again cannot help becomes a [`Trouble`], which is found again in the chain of the library's error.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::body::{Clock, Received, Sent};
use crate::trouble::{Refusal, Trouble};

/// How long a machine's own credentials may take: nobody answers where there are none.
const METADATA_LIMIT: Duration = Duration::from_secs(2);
/// How much of a refusal is read, in bytes.
const REFUSAL_LIMIT: u64 = 64 << 10;
/// How much any answer may have that the library reads into memory: a thousand keys of a thousand bytes, and the words around them.
const ANSWER_LIMIT: u64 = 16 << 20;

/// Sends requests.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) client: reqwest::Client,
    /// Whether anyone may be spoken to without TLS.
    pub(crate) plain_http: bool,
    pub(crate) silence: Duration,
    /// Hosts, maybe with ports, that give credentials to the machine, besides those that every cloud has.
    pub(crate) metadata: Vec<String>,
    /// The longest `Retry-After` that is kept.
    pub(crate) longest_wait: Duration,
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or("").to_owned();
        let endpoint = endpoint(request.uri());
        if self.is_metadata(request.uri()) {
            let asked = tokio::time::timeout(METADATA_LIMIT, self.exchange(request, endpoint.clone()));
            return match asked.await {
                Ok(Ok(answer)) if answer.status().is_success() => Ok(answer),
                Ok(Ok(answer)) => Err(no_credentials(&endpoint, &format!("answers {}", answer.status()))),
                Ok(Err(error)) => Err(no_credentials(&endpoint, &words(&error))),
                Err(_) => Err(no_credentials(&endpoint, "does not answer")),
            };
        }
        let is_plain = request.uri().scheme_str() != Some("https");
        if is_plain && !self.plain_http && !is_loopback(&host) {
            return Err(HttpError::new(
                HttpErrorKind::Unknown,
                Trouble::PlainHttp { endpoint },
            ));
        }
        self.exchange(request, endpoint).await
    }
}

impl Wire {
    fn is_metadata(&self, uri: &http::Uri) -> bool {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        is_metadata(uri.host().unwrap_or("")) || self.metadata.iter().any(|known| known == authority)
    }

    async fn exchange(&self, request: HttpRequest, endpoint: String) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        // What is removed may be removed again; the library takes only questions for such.
        let may_repeat = parts.method == http::Method::DELETE;
        let is_object = is_object(&parts.method, &parts.uri) && !self.is_metadata(&parts.uri);
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let clock = Clock::start(self.silence);
        *request.body_mut() = Some(match body.is_empty() {
            true if body.content_length() == 0 => Bytes::new().into(),
            _ => reqwest::Body::wrap(Sent::new(body, clock.clone())),
        });
        let answer = match clock.unless_silent(self.client.execute(request)).await {
            Some(answer) => answer.map_err(|error| unsent(&endpoint, error)),
            None => Err((HttpErrorKind::Timeout, silent(&endpoint, self.silence))),
        };
        let answer = answer.map_err(|(kind, trouble)| match kind {
            HttpErrorKind::Interrupted | HttpErrorKind::Timeout if may_repeat => {
                HttpError::new(HttpErrorKind::Request, trouble)
            }
            kind => HttpError::new(kind, trouble),
        })?;
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let limit = match parts.status.is_success() {
            true if is_object => None,
            true => Some(ANSWER_LIMIT),
            false => Some(REFUSAL_LIMIT),
        };
        let body = HttpResponseBody::new(Received::new(body, endpoint.clone(), self.silence, limit));
        match parts.status.is_success() {
            true => Ok(HttpResponse::from_parts(parts, body)),
            false => self.refusal(parts, body, &endpoint).await,
        }
    }

    /// What of an answer that is no success the library gets to see.
    async fn refusal(
        &self,
        mut parts: http::response::Parts,
        body: HttpResponseBody,
        endpoint: &str,
    ) -> Result<HttpResponse, HttpError> {
        // A body that ends early or never is as good as none: the status counts.
        let text = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let refusal = Refusal::read(
            endpoint,
            parts.status,
            &parts.headers,
            &String::from_utf8_lossy(&text),
        );
        if refusal.code == "RequestTimeout" {
            parts.status = StatusCode::REQUEST_TIMEOUT; // S3 says 400, and means that the connection was slow
        }
        let is_final = match parts.status.as_u16() {
            // A condition that does not hold, or an object that is not there: the library tells them apart.
            304 | 409 | 412 => false,
            404 => refusal.no_bucket(),
            408 | 429 => false,
            501 | 505 => true,
            status => status < 500,
        };
        let wait = retry_after(&parts.headers, SystemTime::now()).unwrap_or_default();
        let may_pass = parts.status.is_server_error() || matches!(parts.status.as_u16(), 408 | 429);
        if is_final || (may_pass && wait > self.longest_wait) {
            return Err(HttpError::new(HttpErrorKind::Unknown, Trouble::Refused(refusal)));
        }
        if may_pass && !wait.is_zero() {
            // The library waits by a clock of its own; what the server asks for comes first.
            tokio::time::sleep(wait).await;
        }
        // Every provider names the word in its header or body; the library only shows it.
        let shown = HttpResponseBody::from(refusal.to_string());
        Ok(HttpResponse::from_parts(parts, shown))
    }
}

/// How long a server asks to wait: in seconds, or until a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Scheme, host and port, as a person would look for them.
pub(crate) fn endpoint(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or("");
    format!("{}://{host}", uri.scheme_str().unwrap_or("http"))
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost");
    name || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Where clouds give a machine its credentials: link-local addresses and Google's name for one, all without TLS.
fn is_metadata(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.segments().starts_with(&[0xfd00, 0x0ec2]),
        Err(_) => matches!(bare, "metadata" | "metadata.google.internal"),
    }
}

/// Whether the answer is an object, whose bytes are taken as they come; all else is read into memory by the library.
fn is_object(method: &http::Method, uri: &http::Uri) -> bool {
    // What a signed address says of itself is no matter of ours.
    let names = uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter_map(|pair| pair.split('=').next());
    let is_question = names
        .into_iter()
        .any(|name| matches!(name, "list-type" | "comp" | "uploads" | "uploadId"));
    method == http::Method::GET && !is_question
}

fn words(error: &HttpError) -> String {
    let cause = crate::error::trouble(error);
    cause.map_or_else(
        || error.to_string(),
        |trouble| match trouble {
            Trouble::Refused(refusal) => format!("answers {}", refusal.status),
            Trouble::Unreachable { .. } => "is not reached".to_owned(),
            other => other.words(),
        },
    )
}

fn no_credentials(endpoint: &str, why: &str) -> HttpError {
    let why = format!("{endpoint}, where a cloud's machines get theirs, {why}");
    HttpError::new(HttpErrorKind::Unknown, Trouble::NoCredentials { why })
}

fn silent(endpoint: &str, limit: Duration) -> Trouble {
    Trouble::Silent {
        endpoint: endpoint.to_owned(),
        seconds: limit.as_secs(),
    }
}

/// A request that got no answer, and what the library is to think of it.
fn unsent(endpoint: &str, error: reqwest::Error) -> (HttpErrorKind, Trouble) {
    let source = error.without_url();
    let endpoint = endpoint.to_owned();
    if !source.is_connect() {
        return (HttpErrorKind::Interrupted, Trouble::Broken { endpoint, source });
    }
    // A certificate does not get better.
    let kind = if is_tls(&source) {
        HttpErrorKind::Unknown
    } else {
        HttpErrorKind::Connect
    };
    (kind, Trouble::Unreachable { endpoint, source })
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "::1",
        ] {
            assert!(is_loopback(host) && !is_metadata(host), "{host}");
        }
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
            "metadata.google.internal",
        ] {
            assert!(is_metadata(host) && !is_loopback(host), "{host}");
        }
        for host in [
            "s3.amazonaws.com",
            "10.0.0.1",
            "localhost.example",
            "127.0.0.1.example",
            "fd00::1",
            "",
        ] {
            assert!(!is_metadata(host) && !is_loopback(host), "{host}");
        }
    }

    #[test]
    fn only_objects_may_be_long() {
        let get = |uri: &str| is_object(&http::Method::GET, &uri.parse().unwrap());
        assert!(get("https://h/b/key") && get("https://h/b/key?sv=1&sig=x"));
        for uri in [
            "https://h/b?list-type=2&prefix=x",
            "https://h/b?restype=container&comp=list",
        ] {
            assert!(!get(uri), "{uri}");
        }
        assert!(!is_object(
            &http::Method::PUT,
            &"https://h/b/key".parse().unwrap()
        ));
    }

    #[test]
    fn endpoints_have_no_path_and_no_secret() {
        let uri = "http://joe:s3cret@h:1/a?sig=s3cret".parse().unwrap();
        assert_eq!(endpoint(&uri), "http://h:1");
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("3", Some(3)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            let seconds = retry_after(&headers, now).map(|wait| wait.as_secs());
            assert_eq!(seconds, expected, "{value}");
        }
    }
}
