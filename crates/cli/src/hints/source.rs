//! What helps when an OCI image cannot be had. The library knows most of it; the flags are ours.

use std::io;
use std::path::Path;

use firebrick_source::{Platform, SourceError, Trouble};

use super::DAMAGED;

/// Processors by OCI's names for which there are Linux images.
const ARCHITECTURES: [&str; 12] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x",
    "sparc64",
];

pub(super) fn of(error: &SourceError) -> Option<String> {
    Some(match error {
        SourceError::Shared(error) => return of(error),
        SourceError::NoPlatform { available, .. } => of_platforms(available),
        SourceError::NotFound { reference, .. } => format!(
            "see which tags there are: skopeo list-tags docker://{}/{}",
            reference.registry, reference.repository
        ),
        SourceError::Limit { .. } => return None, // no flag raises these
        SourceError::Mismatch { .. }
        | SourceError::LayerCount { .. }
        | SourceError::Archive { .. }
        | SourceError::Json { .. }
        | SourceError::Malformed { .. }
        | SourceError::Outside { .. }
        | SourceError::LinkLoop { .. } => DAMAGED.to_owned(),
        SourceError::Missing { .. } if error.hint().is_none() => {
            "the image is incomplete: copy it again, e.g. skopeo copy --all docker://NAME oci:DIR:TAG"
                .to_owned()
        }
        SourceError::MediaType { .. } => {
            "this may be no container image but another artifact; see: skopeo inspect --raw docker://NAME"
                .to_owned()
        }
        SourceError::Transport { url, .. } => of_transport(url, error.trouble()),
        SourceError::Status { .. } | SourceError::Busy { .. } => {
            "the registry has trouble of its own: try again later".to_owned()
        }
        SourceError::Protocol { problem, .. } if problem.contains("plain HTTP") => {
            "if you trust the network on the way to it: --plain-http".to_owned()
        }
        SourceError::Protocol { url, .. } => format!("this may be no registry; see: curl -si {}", base(url)),
        SourceError::CredentialHelper {
            helper,
            config,
            message,
            ..
        } => of_helper(helper, &config.display().to_string(), message),
        SourceError::DockerConfig { path, .. } => format!(
            "mend {}, or choose another file: --authfile FILE, or DOCKER_CONFIG=FOLDER",
            path.display()
        ),
        SourceError::Option {
            option: "CA file",
            value,
        } => {
            format!("it must hold certificates as PEM; see: openssl x509 -noout -subject -in {value}")
        }
        SourceError::Option { option: "proxy", .. } => {
            "HTTPS_PROXY is written http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT".to_owned()
        }
        SourceError::File { action, path, source } => return of_file(action, path, source.kind()),
        SourceError::Changed { .. } => {
            "build when nothing writes there any more, or from a copy: cp -a".to_owned()
        }
        SourceError::Unrepresentable { path, .. } => {
            format!("rename it or leave it out: {}", path.display())
        }
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

/// Those of the offered platforms that a VM can be of.
fn of_platforms(available: &[String]) -> String {
    let is_bootable = |platform: &Platform| {
        platform.os == "linux" && ARCHITECTURES.contains(&platform.architecture.as_str())
    };
    let bootable: Vec<String> = available
        .iter()
        .filter_map(|platform| platform.parse().ok().filter(is_bootable))
        .map(|platform: Platform| format!("--platform {platform}"))
        .collect();
    match bootable.is_empty() {
        true => {
            "none of these is for Linux on a processor that firebrick knows: take another image".to_owned()
        }
        false => format!("choose one: {}", bootable.join(", or ")),
    }
}

fn of_file(action: &str, path: &Path, kind: io::ErrorKind) -> Option<String> {
    let is_cache = matches!(
        action,
        "make" | "lock" | "write" | "write a blob in" | "rename to" | "sync" | "use the partial download"
    ) || (action == "open" && path.extension().is_some_and(|end| end == "partial"));
    let path = path.display();
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound => None,
        _ if is_cache => Some(
            "do without the cache, --no-cache, or have another: export XDG_CACHE_HOME=FOLDER, or FIREBRICK_HOME"
                .to_owned(),
        ),
        io::ErrorKind::NotADirectory => Some(format!(
            "a file is oci-archive:{path}, docker-archive:{path} or tar:{path}"
        )),
        io::ErrorKind::PermissionDenied => Some(format!(
            "run as a user who may read it, see: ls -ld {path}; what a rootless container wrote you may read so: \
             unshare --map-root-user --map-auto firebrick ..."
        )),
        // Whoever prints these knows what the host's own errors mean.
        _ => None,
    }
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
    use super::*;

    #[test]
    fn each_trouble_on_the_way_has_its_own_advice() {
        let hint = |kind: io::ErrorKind, text: &str| {
            of(&SourceError::Transport {
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

    #[test]
    fn only_platforms_that_can_boot_are_offered() {
        let hint = |available: &[&str]| {
            of_platforms(&available.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            hint(&["linux/arm/v7", "linux/s390x", "unknown/unknown", "windows/amd64"]),
            "choose one: --platform linux/arm/v7, or --platform linux/s390x"
        );
        for none in [&["unknown/unknown", "windows/amd64", "linux/unknown"][..], &[]] {
            assert!(hint(none).starts_with("none of these is for Linux"));
        }
    }
}
