//! Stores on real servers, each behind a proxy that a test tells what to do.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use firebrick_bucket::{Bucket, Options, Retry};
use firebrick_registry::RegistryOptions;
use firebrick_store::{Backend, Layout, Registry, Seal, Store, TableCache};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup};
use firebrick_testkit::{docker_registry, stores};

use crate::common::Host;

/// A server with room for images.
pub(crate) enum Server {
    Bucket(stores::Store),
    Registry(DockerRegistry),
}

impl Server {
    /// SeaweedFS, unless it is left out.
    pub(crate) fn seaweed() -> Option<Server> {
        stores::seaweed().unwrap().map(Server::Bucket)
    }

    /// Debian's docker-registry, unless it is left out.
    pub(crate) fn registry() -> Option<Server> {
        docker_registry::have_tools().then(|| Server::Registry(DockerRegistry::start(&Setup::default())))
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        match self {
            Server::Bucket(store) => store.host(),
            Server::Registry(registry) => registry.host.clone(),
        }
    }

    fn port(&self) -> u16 {
        let host = self.host();
        host.rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap()
    }

    /// A host with a cache of its own, whose store is there under `prefix`. It does not wait long for anything.
    pub(crate) fn client(&self, prefix: &str, cache: &Path) -> Host {
        self.client_by(self.port(), prefix, cache)
    }

    /// The same by way of a proxy on another port of this machine.
    pub(crate) fn client_by(&self, port: u16, prefix: &str, cache: &Path) -> Host {
        let backend: Box<dyn Backend> = match self {
            Server::Bucket(store) => Box::new(Layout::new(bucket(store, port, prefix))),
            Server::Registry(_) => Box::new(registry(port, prefix)),
        };
        let stop = Arc::new(AtomicBool::new(false));
        Host {
            store: Store::new(backend, Some(TableCache::new(cache)), Box::new(|_| ()), stop),
            seal: Seal::PLAIN,
        }
    }
}

fn bucket(store: &stores::Store, port: u16, prefix: &str) -> Bucket {
    let options = Options {
        variables: store.variables_by(port),
        system_ca: false,
        silence: Duration::from_secs(1),
        retry: Retry {
            retries: 3,
            first_wait: Duration::from_millis(5),
            longest_wait: Duration::from_millis(50),
            limit: Duration::from_secs(20),
        },
        ..Options::default()
    };
    Bucket::open(&format!("{}/{prefix}", store.address()), options).unwrap()
}

fn registry(port: u16, prefix: &str) -> Registry {
    let options = RegistryOptions {
        read_timeout: Duration::from_secs(1),
        retry: firebrick_registry::Retry {
            attempts: 4,
            first_delay: Duration::from_millis(5),
            max_delay: Duration::from_secs(2),
        },
        ..RegistryOptions::default()
    };
    Registry::new(&format!("127.0.0.1:{port}/{prefix}"), options, Arc::new(|_| ()))
}
