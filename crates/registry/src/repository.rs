//! One repository of one registry, and how it is asked anything.

use std::fmt;
use std::sync::{Mutex, OnceLock};

use ureq::http::{Response, Uri};
use ureq::{Body, ResponseExt as _};

use crate::access::Access;
use crate::address::{same_origin, shown};
use crate::answer::message;
use crate::attempts::Failure;
use crate::auth::Authorizer;
use crate::client::{Client, Request};
use crate::error::RegistryError;
use crate::name::RepositoryName;
use crate::options::{OnRetry, RegistryOptions};

/// One repository of one registry. Every method may be called from many threads at once, and tries again by itself what may pass.
pub struct Repository {
    name: RepositoryName,
    pub(crate) client: Client,
    authorizer: Authorizer,
    origin: OnceLock<String>,
    /// Held while an index of referrers is read, changed and written.
    pub(crate) referrers: Mutex<()>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Repository").field(&self.name.to_string()).finish()
    }
}

impl Repository {
    /// A repository that nobody has been asked about yet.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn new(
        name: &RepositoryName,
        options: &RegistryOptions,
        on_retry: OnRetry,
    ) -> Result<Repository, RegistryError> {
        Ok(Repository {
            name: name.clone(),
            client: Client::new(options, on_retry)?,
            authorizer: Authorizer::new(name, options),
            origin: OnceLock::new(),
            referrers: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Scheme and host of the registry.
    pub(crate) fn origin(&self) -> &str {
        self.origin
            .get_or_init(|| self.client.origin(&self.name.registry))
    }

    /// The address of something in the repository.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.origin(), self.name.repository)
    }

    /// Tries until it succeeds or another try is pointless.
    pub(crate) fn attempt<T>(
        &self,
        action: &'static str,
        url: &str,
        try_it: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, RegistryError> {
        let mut attempts = self.client.attempts(action, url);
        loop {
            match try_it() {
                Ok(done) => return Ok(done),
                Err(failure) => attempts.failed(failure)?,
            }
        }
    }

    /// One exchange, with whatever credentials the registry asks for. What it does not let us do is a failure; other refusals
    /// are answers.
    pub(crate) fn exchange(
        &self,
        access: Access<'_>,
        request: &Request<'_>,
    ) -> Result<Response<Body>, Failure> {
        let is_ours = request.url.parse().is_ok_and(|uri| self.is_ours(&uri));
        let mut authorization = self.authorizer.current(access).filter(|_| is_ours);
        for last in [false, false, true] {
            let mut answer = self.client.send(request, authorization.as_deref())?;
            let status = answer.status().as_u16();
            // Whom we were sent on to has no business with who we are.
            if status == 401 && !last && is_ours && self.is_ours(answer.get_uri()) {
                let next = self
                    .authorizer
                    .answer(&self.client, access, &answer, authorization.as_deref())?;
                if next.is_some() && next != authorization {
                    authorization = next;
                    continue;
                }
            }
            return match status {
                401 | 403 => Err(self.refused(access, message(&mut answer))),
                _ => Ok(answer),
            };
        }
        Err(self.refused(access, String::new()))
    }

    fn refused(&self, access: Access<'_>, message: String) -> Failure {
        Failure::Final(self.authorizer.refused(access.action(), message))
    }

    /// Whether an address is of the registry itself, not of a store that it uses.
    fn is_ours(&self, uri: &Uri) -> bool {
        self.origin()
            .parse()
            .is_ok_and(|origin| same_origin(uri, &origin))
    }

    /// What an answer means that is none of those that were hoped for. `what` was asked about.
    pub(crate) fn failure(&self, what: &str, url: &str, mut answer: Response<Body>) -> Failure {
        let status = answer.status().as_u16();
        let message = message(&mut answer);
        Failure::Final(match status {
            404 => RegistryError::NotFound {
                name: format!("{}{what}", self.name),
                message,
            },
            status => RegistryError::Status {
                url: shown(url),
                status,
                message,
            },
        })
    }
}
