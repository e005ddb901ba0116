//! How a registry's challenge is answered: not at all, with a name and password, or with a token from its token
//! server.
//!
//! A token is good for what it was asked for, its *scopes*. It is kept until shortly before it expires and shared by all threads.
//! Scopes: <https://distribution.github.io/distribution/spec/auth/scope/>.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, header};

use crate::access::{Access, Scope};
use crate::address::{percent_encoded, shown};
use crate::answer::{message, small};
use crate::attempts::Failure;
use crate::challenge::{self, Challenge};
use crate::client::{Client, Request};
use crate::credentials;
use crate::error::RegistryError;
use crate::name::RepositoryName;
use crate::options::{Credentials, RegistryOptions};

const TOKEN_LIMIT: u64 = 1 << 20;
/// What a token lives if its server does not say: the protocol's default.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Tokens are renewed this long before they expire.
const MARGIN: Duration = Duration::from_secs(10);

/// Keeps the current `Authorization`s of one repository.
pub(crate) struct Authorizer {
    name: RepositoryName,
    options: RegistryOptions,
    /// Looked for only when the registry asks.
    credentials: OnceLock<Option<Credentials>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Good for whatever the account may do.
    for_all: Option<Authorization>,
    /// By the scopes that they were asked for.
    tokens: BTreeMap<Vec<Scope>, Authorization>,
}

#[derive(Clone)]
struct Authorization {
    header: String,
    expires: Option<Instant>,
}

impl Known {
    /// The header to send for these scopes, if one is known and still good.
    fn header(&self, scopes: &[Scope]) -> Option<String> {
        [self.tokens.get(scopes), self.for_all.as_ref()]
            .into_iter()
            .flatten()
            .find(|known| known.expires.is_none_or(|expires| Instant::now() < expires))
            .map(|known| known.header.clone())
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorizer {
    pub(crate) fn new(name: &RepositoryName, options: &RegistryOptions) -> Authorizer {
        Authorizer {
            name: name.clone(),
            options: options.clone(),
            credentials: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// The header to send, if one is known and still good.
    pub(crate) fn current(&self, access: Access<'_>) -> Option<String> {
        let scopes = access.scopes(&self.name.repository);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.header(&scopes)
    }

    /// Finds the header that answers a 401; `None` if there is none. `sent` is the header that was refused.
    pub(crate) fn answer(
        &self,
        client: &Client,
        access: Access<'_>,
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
        let scopes = access.scopes(&self.name.repository);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been given a new token while we waited.
        if let Some(header) = known.header(&scopes).filter(|header| sent != Some(header)) {
            return Ok(Some(header));
        }
        let credentials = self.credentials().map_err(Failure::Final)?;
        let with_scheme = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        known.tokens.remove(&scopes);
        let header = match (with_scheme("bearer"), with_scheme("basic"), credentials) {
            (Some(_), _, Some(Credentials::RegistryToken(token))) => {
                let header = format!("Bearer {token}");
                known.for_all = Some(Authorization::unlimited(&header));
                Some(header)
            }
            (Some(bearer), _, credentials) => {
                let token = self.fetch_token(client, access, bearer, credentials)?;
                let header = token.header.clone();
                known.tokens.insert(scopes, token);
                Some(header)
            }
            (None, Some(_), Some(Credentials::Basic { username, password })) => {
                let header = basic(username, password);
                known.for_all = Some(Authorization::unlimited(&header));
                Some(header)
            }
            _ => None,
        };
        Ok(header)
    }

    fn credentials(&self) -> Result<Option<&Credentials>, RegistryError> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.as_ref());
        }
        let found = credentials::find(&self.options, &self.name.registry, &self.name.repository)?;
        Ok(self.credentials.get_or_init(|| found).as_ref())
    }

    /// The error for a refusal that we have no answer to.
    pub(crate) fn refused(&self, action: &'static str, message: String) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.name.registry.clone(),
            action,
            repository: self.name.repository.clone(),
            message,
            with_credentials: self.credentials.get().is_some_and(Option::is_some),
        }
    }

    fn fetch_token(
        &self,
        client: &Client,
        access: Access<'_>,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<Authorization, Failure> {
        let realm = challenge.get("realm").unwrap_or("");
        let own = access.scopes(&self.name.repository);
        let scopes = Scope::wanted(challenge.get("scope").unwrap_or(""), &own);
        let service = challenge.get("service").unwrap_or("");
        let mut answer = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("scope", &scopes.join(" ")),
                    ("client_id", "firebrick"),
                    ("refresh_token", token),
                ];
                client.post_form(realm, &form)?
            }
            credentials => {
                let mut url = realm.to_owned();
                let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
                for (name, value) in [("service", service)].into_iter().chain(scopes) {
                    if !value.is_empty() {
                        url.push(if url.contains('?') { '&' } else { '?' });
                        url.push_str(&format!("{name}={}", percent_encoded(value)));
                    }
                }
                let header = match credentials {
                    Some(Credentials::Basic { username, password }) => Some(basic(username, password)),
                    _ => None,
                };
                client.send(&Request::get(&url, &[]), header.as_deref())?
            }
        };
        match answer.status().as_u16() {
            200 => {}
            400 | 401 | 403 => {
                return Err(Failure::Final(
                    self.refused(access.action(), message(&mut answer)),
                ));
            }
            status => {
                return Err(Failure::Final(RegistryError::Status {
                    url: shown(realm),
                    status,
                    message: message(&mut answer),
                }));
            }
        }
        read_token(realm, answer)
    }
}

impl Authorization {
    fn unlimited(header: &str) -> Authorization {
        Authorization {
            header: header.to_owned(),
            expires: None,
        }
    }
}

fn read_token(realm: &str, answer: Response<Body>) -> Result<Authorization, Failure> {
    let protocol = |problem| {
        Failure::Final(RegistryError::Protocol {
            url: shown(realm),
            problem,
        })
    };
    let (_, bytes) = small(realm, answer, TOKEN_LIMIT).map_err(|failure| match failure {
        // Who asked for a manifest would take it for one.
        Failure::Final(RegistryError::TooLarge { .. }) => {
            protocol("the token server's answer is longer than 1 MiB")
        }
        failure => failure,
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_encoding() {
        assert_eq!(
            basic("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        ); // RFC 7617, section 2
    }
}
