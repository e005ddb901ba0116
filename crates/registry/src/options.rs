//! What the caller decides: who it is, whom it trusts, how patient it is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Docker's `config.json` (or podman's `auth.json`), for its `auths`, `credHelpers` and `credsStore`.
    pub docker_config: Option<PathBuf>,
    /// Folders searched for `docker-credential-NAME` programs before the `PATH`.
    pub credential_helper_dirs: Vec<PathBuf>,
    /// Credentials by registry host, which come before those of the file.
    pub credentials: BTreeMap<String, Credentials>,
    /// Hosts (with port, if any) that are asked over plain HTTP. Loopback names need not be listed.
    pub plain_http: Vec<String>,
    /// PEM files of certificate authorities, trusted besides those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Whether the system's certificate authorities are trusted.
    pub system_ca: bool,
    /// An HTTP proxy.
    pub proxy: Option<Proxy>,
    /// How many layers download at a time.
    pub parallel: usize,
    /// How failures are met.
    pub retry: Retry,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next bytes; and in that time 64 KiB come, or all that is left.
    pub read_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            docker_config: None,
            credential_helper_dirs: Vec::new(),
            credentials: BTreeMap::new(),
            plain_http: Vec::new(),
            ca_files: Vec::new(),
            system_ca: true,
            proxy: None,
            parallel: 4,
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// An HTTP proxy, reached by `CONNECT`.
#[derive(Clone)]
pub struct Proxy {
    /// Its address, e.g. `http://proxy:3128`, maybe with user and password.
    pub url: String,
    /// Hosts that are asked directly, as the `NO_PROXY` variable lists them.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.rsplit('@').next().unwrap_or("");
        f.debug_struct("Proxy")
            .field("host", &host)
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// What a registry is shown. Its `Debug` text holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password (or an access token that serves as one).
    Basic {
        /// The account.
        username: String,
        /// Its password.
        password: String,
    },
    /// A refresh token that the registry's token server changes into access tokens.
    IdentityToken(String),
    /// A ready bearer token.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Credentials::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// How failures that may pass are met. Delays double from `first_delay`; there is no chance in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often one thing is tried in a row. A transfer that moved on starts counting again.
    pub attempts: u32,
    /// The pause before the second try.
    pub first_delay: Duration,
    /// The longest pause, also when the registry asks for one (`Retry-After`); beyond it we give up.
    pub max_delay: Duration,
    /// Who says nothing, or nearly nothing, is not tried again if that could end later than this after the first try began.
    pub limit: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
            limit: Duration::from_secs(150),
        }
    }
}

impl Retry {
    /// The pause after the `failures`-th failure in a row, counted from 1.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(20));
        self.first_delay.saturating_mul(doubled).min(self.max_delay)
    }
}

/// Something failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrying {
    /// The address, without secrets.
    pub url: String,
    /// What failed.
    pub cause: String,
    /// The pause before the next try.
    pub delay: Duration,
}

/// Hears of what is tried again; called from the thread that tries.
pub type OnRetry = Arc<dyn Fn(Retrying) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let retry = Retry::default();
        let seconds: Vec<f64> = (1..10).map(|n| retry.delay(n).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(retry.delay(u32::MAX), retry.max_delay);
    }

    #[test]
    fn debug_text_holds_no_secret() {
        let secrets = [
            Credentials::Basic {
                username: "joe".into(),
                password: "s3cret".into(),
            },
            Credentials::IdentityToken("s3cret".into()),
            Credentials::RegistryToken("s3cret".into()),
        ];
        let proxy = Proxy {
            url: "http://joe:s3cret@proxy:3128".into(),
            no_proxy: Vec::new(),
        };
        let text = format!("{secrets:?} {proxy:?}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("proxy:3128"), "{text}");
    }
}
