//! The HTTP client: TLS by our own list of authorities, the proxy, no redirects.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::BucketError;
use crate::options::{Options, Proxy};
use crate::wire::Wire;

/// The largest file of certificates that is read, in bytes.
const CA_LIMIT: u64 = 16 << 20;
/// Where distributions keep their certificate authorities.
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What is never asked through a proxy: this machine, and where it finds its credentials.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::/32,metadata.google.internal";

/// What requests are sent by.
pub(crate) fn wire(address: &str, options: &Options) -> Result<Wire, BucketError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BucketError::Client {
        address: address.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.into()))?
        .with_root_certificates(authorities(options)?)
        .with_no_client_auth();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("firebrick/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .connect_timeout(options.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        // That of the environment is the caller's to give.
        .no_proxy();
    if let Some(option) = &options.proxy {
        builder = builder.proxy(proxy(option)?);
    }
    Ok(Wire {
        client: builder.build().map_err(|error| failed(error.into()))?,
        plain_http: options.plain_http || options.says_yes(&["AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP"]),
        silence: options.silence,
        metadata: metadata(options),
        longest_wait: options.retry.limit,
    })
}

/// Where variables say that the machine's credentials are.
fn metadata(options: &Options) -> Vec<String> {
    let names = [
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_METADATA_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "IDENTITY_ENDPOINT",
        "GCE_METADATA_HOST",
    ];
    let values = names.into_iter().filter_map(|name| options.variable(&[name]));
    let authority = |value: &str| {
        let bare = value.split_once("://").map_or(value, |(_, rest)| rest);
        bare.split('/').next().unwrap_or("").to_owned()
    };
    values.map(authority).collect()
}

fn proxy(option: &Proxy) -> Result<reqwest::Proxy, BucketError> {
    let unusable = |what: &str| BucketError::Option {
        option: "proxy".to_owned(),
        what: format!("{}: {what}", option.host()),
    };
    if !["http://", "https://"]
        .iter()
        .any(|scheme| option.url.starts_with(scheme))
    {
        return Err(unusable("it is written http://HOST:PORT"));
    }
    let proxy = reqwest::Proxy::all(&option.url).map_err(|_| unusable("it is no address"))?;
    let direct = [&[DIRECT.to_owned()], option.no_proxy.as_slice()]
        .concat()
        .join(",");
    Ok(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)))
}

fn authorities(options: &Options) -> Result<RootCertStore, BucketError> {
    let mut store = RootCertStore::empty();
    if options.system_ca
        && let Some(bundle) = SYSTEM_CA.iter().map(Path::new).find(|path| path.exists())
    {
        // It may hold a certificate that we cannot read; the others still count.
        store.add_parsable_certificates(certificates(bundle)?);
    }
    let named = options.variable(&["AWS_CA_BUNDLE"]).map(Path::new);
    for path in options.ca_files.iter().map(|path| &**path).chain(named) {
        let (added, _) = store.add_parsable_certificates(certificates(path)?);
        if added == 0 {
            return Err(BucketError::Option {
                option: "CA file".to_owned(),
                what: format!("{} has no certificate", path.display()),
            });
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BucketError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(CA_LIMIT).read_to_end(&mut bytes));
    read.map_err(|source: io::Error| BucketError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(CertificateDer::pem_slice_iter(&bytes).flatten().collect())
}
