//! What helps when a registry does not give what it was asked for. The library knows most of it; the flags are ours.

use firebrick_source::{RegistryError, Trouble};

use super::DAMAGED;

pub(super) fn of(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::Transport { url, .. } => of_transport(url, error.trouble()),
        RegistryError::Status { .. } | RegistryError::Busy { .. } => {
            "the registry has trouble of its own: try again later".to_owned()
        }
        RegistryError::Protocol { problem, .. } if problem.contains("plain HTTP") => {
            "if you trust the network on the way to it: --plain-http".to_owned()
        }
        RegistryError::Protocol { url, .. } => {
            format!("this may be no registry; see: curl -si {}", base(url))
        }
        RegistryError::CredentialHelper {
            helper,
            config,
            message,
            ..
        } => of_helper(helper, &config.display().to_string(), message),
        RegistryError::DockerConfig { path, .. } => format!(
            "mend {}, or choose another file: --authfile FILE, or DOCKER_CONFIG=FOLDER",
            path.display()
        ),
        RegistryError::Option {
            option: "CA file",
            value,
        } => {
            format!("it must hold certificates as PEM; see: openssl x509 -noout -subject -in {value}")
        }
        RegistryError::Option { option: "proxy", .. } => {
            "HTTPS_PROXY is written http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT".to_owned()
        }
        RegistryError::Unsupported { action, .. } if action.starts_with("remove") => {
            "whoever runs it must allow that; the registry of Docker's image does with REGISTRY_STORAGE_DELETE_ENABLED=true".to_owned()
        }
        RegistryError::Mismatch { .. } => DAMAGED.to_owned(),
        other => return other.hint(),
    })
}

fn of_helper(helper: &str, config: &str, message: &str) -> String {
    let first = match message.contains("no such program") {
        true => format!("install {helper}"),
        false => format!("try it by hand, {helper} list"),
    };
    format!("{first}, or take it out of {config}, or choose another file: --authfile FILE")
}

fn of_transport(url: &str, trouble: Option<Trouble>) -> String {
    let base = base(url);
    let see = match url.contains("/v2/") {
        true => format!("curl -sI {base}/v2/"),
        false => format!("curl -sI {url}"),
    };
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    match trouble {
        Some(Trouble::UnknownHost) => format!(
            "check how it is spelt, and whether names are found here at all: getent hosts {name}; behind a proxy set HTTPS_PROXY"
        ),
        Some(Trouble::Refused) => format!("nothing listens there; is it the right port? see: {see}"),
        Some(Trouble::Untrusted) => {
            "if it has a certificate authority of its own, trust that: --ca-file PEM; else check the name and this host's date".to_owned()
        }
        Some(Trouble::NotTls) => format!(
            "it does not speak TLS; if it is to be asked so, and you trust the network: --plain-http. See: {see}"
        ),
        Some(Trouble::Proxy) => "see what HTTPS_PROXY says; NO_PROXY names the hosts to ask directly".to_owned(),
        _ => format!("see whether it answers: {see}; a proxy is taken from HTTPS_PROXY"),
    }
}

/// Scheme and host of an address.
fn base(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url
        .get(host..)
        .and_then(|rest| rest.find('/'))
        .map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_trouble_on_the_way_has_its_own_advice() {
        let hint = |kind: io::ErrorKind, text: &str| {
            of(&RegistryError::Transport {
                action: "read",
                url: "https://a.io:5000/v2/x/manifests/y".to_owned(),
                attempts: 5,
                source: Box::new(io::Error::new(kind, text.to_owned())),
            })
            .unwrap_or_default()
        };
        for (kind, text, expected) in [
            (
                io::ErrorKind::ConnectionRefused,
                "",
                "curl -sI https://a.io:5000/v2/",
            ),
            (io::ErrorKind::TimedOut, "", "HTTPS_PROXY"),
            (io::ErrorKind::UnexpectedEof, "", "curl -sI https://a.io:5000/v2/"),
            (
                io::ErrorKind::Other,
                "failed to lookup address information: Name or service not known",
                "getent hosts a.io;",
            ),
        ] {
            let found = hint(kind, text);
            assert!(found.contains(expected), "{found}");
        }
    }
}
