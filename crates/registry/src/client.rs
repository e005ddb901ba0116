//! One HTTP exchange: the connection, redirects, and what a failure means.
//!
//! `Authorization` goes only to the registry that asked for it: a redirect to another scheme, host or port drops it.
//! Plain HTTP is spoken only with hosts for which that is allowed, also behind redirects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{self, Method, Response, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::address::{is_loopback, join, same_origin, shown};
use crate::answer::message;
use crate::attempts::{Attempts, Cause, Failure, may_pass, retry_after};
use crate::connect::{certificates, proxy};
use crate::error::RegistryError;
use crate::options::{OnRetry, RegistryOptions, Retry};
use crate::pace::Paced;
use crate::transfer::{self, Piece};

/// How long a registry of this machine may take to show whether it speaks TLS.
const PROBE: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 5;
/// Connections kept open to one host, for threads that ask at the same time.
const IDLE_CONNECTIONS: usize = 16;

/// What is asked of a server.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Only for methods that have one.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(url: &'a str, headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request {
            method: Method::GET,
            url,
            headers,
            body: None,
        }
    }

    /// For messages.
    fn action(&self) -> &'static str {
        match self.method {
            Method::GET | Method::HEAD => "read",
            Method::DELETE => "remove",
            _ => "write",
        }
    }
}

/// A client for registries and whatever they redirect to. Many threads may use one.
pub struct Client {
    agent: Agent,
    plain_http: Vec<String>,
    pub(crate) retry: Retry,
    /// How long a try waits for the next bytes.
    pub(crate) patience: Duration,
    pub(crate) on_retry: OnRetry,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("plain_http", &self.plain_http)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client without any connection yet.
    ///
    /// # Errors
    /// [`RegistryError::Option`] if the proxy or a file of certificate authorities cannot be used, [`RegistryError::File`] if it
    /// cannot be read.
    pub fn new(options: &RegistryOptions, on_retry: OnRetry) -> Result<Client, RegistryError> {
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
            .max_idle_connections(2 * IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .timeout_per_write(Some(options.read_timeout))
            .build();
        Ok(Client {
            agent: Agent::new_with_config(config),
            plain_http: options.plain_http.clone(),
            retry: options.retry,
            patience: options.read_timeout,
            on_retry,
        })
    }

    /// Gives all bytes of a single file from `start` on to `sink`, in order, across broken connections. Nobody is told who we
    /// are.
    ///
    /// # Errors
    /// [`RegistryError`], and whatever `sink` fails with.
    pub fn stream_file<E: From<RegistryError>>(
        &self,
        url: &str,
        start: u64,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let open = |start| {
            let range = format!("bytes={start}-");
            let headers: &[(&str, &str)] = match start {
                0 => &[("accept", "*/*")],
                _ => &[("accept", "*/*"), ("range", &range)],
            };
            let answer = self.send(&Request::get(url, headers), None)?;
            match answer.status().as_u16() {
                200 | 206 | 416 => transfer::opened(url, start, answer),
                status => Err(Failure::Final(RegistryError::Status {
                    url: url.to_owned(),
                    status,
                    message: String::new(),
                })),
            }
        };
        transfer::transfer(self.attempts("read", url), start, None, &open, sink)
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
        let ask = |base: &str| {
            let request = self.agent.get(format!("{base}/v2/"));
            request.config().timeout_global(Some(PROBE)).build().call()
        };
        match ask(&plain) {
            Ok(answer) if answer.status() == 400 => secure,
            Ok(_) => plain,
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => plain,
            Err(ureq::Error::Protocol(_) | ureq::Error::Io(_)) => match ask(&secure) {
                Ok(_) | Err(ureq::Error::Rustls(_) | ureq::Error::Tls(_)) => secure,
                Err(_) => plain,
            },
            Err(_) => plain,
        }
    }

    pub(crate) fn attempts<'a>(&'a self, action: &'static str, url: &'a str) -> Attempts<'a> {
        Attempts::new(self, action, url)
    }

    /// Refuses addresses that are neither HTTPS nor allowed to be plain.
    pub(crate) fn check_scheme(&self, url: &str) -> Result<Uri, RegistryError> {
        let protocol = |problem| RegistryError::Protocol {
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

    /// Sends a request and follows redirects. Statuses of failure that may pass are failures here; others, also 401 and
    /// 404, are answers.
    pub(crate) fn send(
        &self,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut uri = self.check_scheme(request.url).map_err(Failure::Final)?;
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS {
            let answer = self.check(request, &uri, self.call(request, &uri, authorization))?;
            let follows = match answer.status().as_u16() {
                307 | 308 => true,
                // Others would have a body sent nowhere.
                301..=303 => request.body.is_none(),
                _ => false,
            };
            if !follows {
                return Ok(answer);
            }
            let protocol = |problem| {
                Failure::Final(RegistryError::Protocol {
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
            if !same_origin(&next, &uri) {
                authorization = None;
            }
            uri = next;
        }
        Err(Failure::Final(RegistryError::Protocol {
            url: shown(request.url),
            problem: "more than 5 redirects in a row",
        }))
    }

    fn call(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(uri.clone());
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        match request.body {
            Some(body) => self.agent.run(builder.body(body)?),
            None => self.agent.run(builder.body(())?),
        }
    }

    /// Posts a form; never follows redirects, for forms carry secrets.
    pub(crate) fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let uri = self.check_scheme(url).map_err(Failure::Final)?;
        let sent = self.agent.post(uri.clone()).send_form(form.iter().copied());
        self.check(&Request::get(url, &[]), &uri, sent)
    }

    fn check(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let mut answer = match answer {
            Ok(answer) => {
                answer.map(|body| Body::builder().reader(Paced::new(body.into_reader(), self.patience)))
            }
            Err(error) if may_pass(&error) => {
                return Err(Failure::Passing {
                    cause: Cause::Transport(Box::new(error)),
                    retry_after: None,
                });
            }
            Err(error) => {
                return Err(Failure::Final(RegistryError::Transport {
                    action: request.action(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_needs_leave() {
        let options = RegistryOptions {
            plain_http: vec!["lab:5000".to_owned()],
            system_ca: false,
            ..RegistryOptions::default()
        };
        let client = Client::new(&options, Arc::new(|_| ())).unwrap();
        for url in ["https://a.io/x", "http://localhost:1/x", "http://lab:5000/x"] {
            assert!(client.check_scheme(url).is_ok(), "{url}");
        }
        for url in [
            "http://a.io/x",
            "http://lab/x",
            "ftp://a.io/x",
            "/x",
            "https://u:p@a.io/",
            "http://localhost:1@a.io/",
        ] {
            assert!(client.check_scheme(url).is_err(), "{url}");
        }
    }
}
