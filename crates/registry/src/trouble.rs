//! What a failed connection tells of the way to a registry.

use std::io;

/// What is in the way of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// Nobody knows the host's name.
    UnknownHost,
    /// Nothing listens there.
    Refused,
    /// Nothing answers in time, or no way leads there.
    Silent,
    /// The proxy does not let us through.
    Proxy,
    /// Its certificate is not by an authority that we trust, or not for it, or not for now.
    Untrusted,
    /// It does not speak TLS.
    NotTls,
    /// It speaks TLS, but we cannot agree.
    Tls,
}

pub(crate) fn trouble(error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_host(error);
    }
    match error.downcast_ref::<ureq::Error>()? {
        ureq::Error::Io(error) => of_host(error),
        ureq::Error::Rustls(error) => Some(of_tls(error)),
        ureq::Error::Tls(_) => Some(Trouble::Tls),
        ureq::Error::HostNotFound => Some(Trouble::UnknownHost),
        ureq::Error::Timeout(_) | ureq::Error::BodyStalled => Some(Trouble::Silent),
        ureq::Error::ConnectProxyFailed(_) => Some(Trouble::Proxy),
        _ => None,
    }
}

fn of_host(error: &io::Error) -> Option<Trouble> {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some(of_tls(error));
    }
    if let Some(inner) = inner.filter(|inner| inner.is::<ureq::Error>()) {
        return trouble(inner);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Trouble::Refused),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Trouble::Silent)
        }
        // The standard library has no kind for it.
        _ if error.to_string().starts_with("failed to lookup address") => Some(Trouble::UnknownHost),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> Trouble {
    match error {
        rustls::Error::InvalidCertificate(_) => Trouble::Untrusted,
        rustls::Error::InvalidMessage(_) => Trouble::NotTls,
        _ => Trouble::Tls,
    }
}
