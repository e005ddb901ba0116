//! Stores in real servers, reached directly or through a proxy that spoils answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firebrick_bucket::{Bucket, Options, Retry};
use firebrick_registry::RegistryOptions;
use firebrick_store::{Layout, Registry};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup};
use firebrick_testkit::{oracle, stores};

use crate::common::Host;

/// The way to a server by a proxy on this machine.
pub(crate) struct By {
    pub(crate) port: u16,
    /// How long it may say nothing.
    pub(crate) patience: Duration,
}

/// A bucket for a client with these variables, who does not wait long before he tries again.
pub(crate) fn bucket_options(variables: Vec<(String, String)>) -> Options {
    Options {
        variables,
        system_ca: false,
        retry: Retry {
            retries: 8,
            first_wait: Duration::from_millis(5),
            longest_wait: Duration::from_millis(50),
            limit: Duration::from_secs(80),
        },
        ..Options::default()
    }
}

/// A real server that holds stores.
pub(crate) enum Server {
    Bucket(stores::Store),
    Registry(DockerRegistry),
}

impl Server {
    /// SeaweedFS; nothing where it is left out.
    pub(crate) fn bucket() -> Option<Server> {
        stores::seaweed().unwrap().map(Server::Bucket)
    }

    /// The registry; nothing where it is left out.
    pub(crate) fn registry() -> Option<Server> {
        let have = oracle::have("docker-registry").unwrap();
        have.then(|| Server::Registry(DockerRegistry::start(&Setup::default())))
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> String {
        match self {
            Server::Bucket(server) => server.host(),
            Server::Registry(server) => server.host.clone(),
        }
    }

    /// A host that uses the store below `prefix`, and has its memory in `cache`.
    pub(crate) fn host(&self, prefix: &str, by: Option<&By>, cache: &Path) -> Host {
        Host::of(
            match self {
                Server::Bucket(server) => {
                    let variables = by.map_or(server.variables(), |by| server.variables_by(by.port));
                    let mut options = bucket_options(variables);
                    options.silence = by.map_or(options.silence, |by| by.patience);
                    let address = format!("{}/{prefix}", server.address());
                    Box::new(Layout::new(Bucket::open(&address, options).unwrap()))
                }
                Server::Registry(server) => {
                    let mut options = RegistryOptions::default();
                    options.retry.first_delay = Duration::from_millis(5);
                    options.retry.attempts = 9;
                    options.read_timeout = by.map_or(options.read_timeout, |by| by.patience);
                    let host = by.map_or(server.host.clone(), |by| format!("127.0.0.1:{}", by.port));
                    Box::new(Registry::new(
                        &format!("{host}/{prefix}"),
                        options,
                        Arc::new(|_| ()),
                    ))
                }
            },
            cache,
        )
    }
}
