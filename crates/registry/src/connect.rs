//! Whom a connection goes through, and whom it trusts.

use std::fs;
use std::io::Read;
use std::path::Path;

use ureq::tls::{Certificate, PemItem};

use crate::error::RegistryError;
use crate::options::{Proxy, RegistryOptions};

const CA_LIMIT: u64 = 16 << 20;
/// Where distributions keep their certificate authorities.
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(crate) fn proxy(option: &Proxy) -> Result<ureq::Proxy, RegistryError> {
    let unusable = || RegistryError::Option {
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

pub(crate) fn certificates(options: &RegistryOptions) -> Result<Vec<Certificate<'static>>, RegistryError> {
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
            return Err(RegistryError::Option {
                option: "CA file",
                value: path.display().to_string(),
            });
        }
        all.extend(found);
    }
    Ok(all)
}

fn read_pem(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let error = |source| RegistryError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
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
