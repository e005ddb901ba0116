//! How a registry's challenge is answered: not at all, with a name and password, or with a token from its token
//! server.
//!
//! Tokens are kept until shortly before they expire and shared by all threads of one image.

use std::io::Read;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, header};

use super::challenge::{self, Challenge};
use super::credentials;
use super::http::{Failure, Http, message, shown};
use crate::error::SourceError;
use crate::options::{Credentials, RegistryOptions};
use crate::reference::RegistryReference;

const TOKEN_LIMIT: u64 = 1 << 20;
/// What a token lives if its server does not say: the protocol's default.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Tokens are renewed this long before they expire.
const MARGIN: Duration = Duration::from_secs(10);

/// Keeps the current `Authorization` of one repository.
pub(crate) struct Authorizer {
    registry: String,
    repository: String,
    options: RegistryOptions,
    /// Looked for only when the registry asks.
    credentials: OnceLock<Option<Credentials>>,
    current: Mutex<Option<Authorization>>,
}

struct Authorization {
    header: String,
    expires: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorizer {
    pub(crate) fn new(reference: &RegistryReference, options: &RegistryOptions) -> Authorizer {
        Authorizer {
            registry: reference.registry.clone(),
            repository: reference.repository.clone(),
            options: options.clone(),
            credentials: OnceLock::new(),
            current: Mutex::new(None),
        }
    }

    /// The header to send, if one is known and still good.
    pub(crate) fn current(&self) -> Option<String> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .filter(|current| current.expires.is_none_or(|expires| Instant::now() < expires))
            .map(|current| current.header.clone())
    }

    /// Finds the header that answers a 401; `None` if there is none. `sent` is the header that was refused.
    pub(crate) fn answer(
        &self,
        http: &Http,
        refusal: &Response<Body>,
        sent: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let challenges: Vec<Challenge> = refusal
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been given a new token while we waited.
        if let Some(known) = current
            .as_ref()
            .filter(|known| sent != Some(known.header.as_str()))
            && known.expires.is_none_or(|expires| Instant::now() < expires)
        {
            return Ok(Some(known.header.clone()));
        }
        let credentials = self.credentials().map_err(Failure::Final)?;
        let with_scheme = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let found = match (with_scheme("bearer"), with_scheme("basic"), credentials) {
            (Some(_), _, Some(Credentials::RegistryToken(token))) => Some(Authorization {
                header: format!("Bearer {token}"),
                expires: None,
            }),
            (Some(bearer), _, credentials) => Some(self.fetch_token(http, bearer, credentials)?),
            (None, Some(_), Some(Credentials::Basic { username, password })) => Some(Authorization {
                header: basic(username, password),
                expires: None,
            }),
            _ => None,
        };
        let header = found.as_ref().map(|found| found.header.clone());
        *current = found;
        Ok(header)
    }

    fn credentials(&self) -> Result<Option<&Credentials>, SourceError> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.as_ref());
        }
        let found = credentials::find(&self.options, &self.registry, &self.repository)?;
        Ok(self.credentials.get_or_init(|| found).as_ref())
    }

    /// The error for a refusal that we have no answer to.
    pub(crate) fn refused(&self, message: String) -> SourceError {
        SourceError::Unauthorized {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            message,
            with_credentials: self.credentials.get().is_some_and(Option::is_some),
        }
    }

    fn fetch_token(
        &self,
        http: &Http,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<Authorization, Failure> {
        let realm = challenge.get("realm").unwrap_or("");
        let own_scope = format!("repository:{}:pull", self.repository);
        let scope = challenge.get("scope").unwrap_or(&own_scope);
        let service = challenge.get("service").unwrap_or("");
        let mut answer = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("scope", scope),
                    ("client_id", "firebrick"),
                    ("refresh_token", token),
                ];
                http.post_form(realm, &form)?
            }
            credentials => {
                let mut url = realm.to_owned();
                for (name, value) in [("service", service), ("scope", scope)] {
                    if !value.is_empty() {
                        url.push(if url.contains('?') { '&' } else { '?' });
                        url.push_str(&format!("{name}={}", percent_encoded(value)));
                    }
                }
                let header = match credentials {
                    Some(Credentials::Basic { username, password }) => Some(basic(username, password)),
                    _ => None,
                };
                http.get(&url, &[], header.as_deref())?
            }
        };
        match answer.status().as_u16() {
            200 => {}
            400 | 401 | 403 => return Err(Failure::Final(self.refused(message(&mut answer)))),
            status => {
                return Err(Failure::Final(SourceError::Status {
                    url: shown(realm),
                    status,
                    message: message(&mut answer),
                }));
            }
        }
        read_token(realm, &mut answer)
    }
}

fn read_token(realm: &str, answer: &mut Response<Body>) -> Result<Authorization, Failure> {
    let protocol = |problem| {
        Failure::Final(SourceError::Protocol {
            url: shown(realm),
            problem,
        })
    };
    let mut bytes = Vec::new();
    let read = answer
        .body_mut()
        .as_reader()
        .take(TOKEN_LIMIT)
        .read_to_end(&mut bytes);
    read.map_err(super::transport)?;
    let answer: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|_| protocol("the token server's answer is not valid"))?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| protocol("the token server's answer holds no token"))?;
    let life = answer.expires_in.map_or(TOKEN_LIFE, Duration::from_secs);
    Ok(Authorization {
        header: format!("Bearer {token}"),
        // An absurdly long life is no expiry at all.
        expires: Instant::now().checked_add(life.saturating_sub(MARGIN)),
    })
}

fn basic(username: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {encoded}")
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        assert_eq!(
            basic("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        ); // RFC 7617, section 2
        assert_eq!(
            percent_encoded("repository:a/b:pull"),
            "repository%3Aa%2Fb%3Apull"
        );
    }
}
