//! How this process reaches registries and other hosts: its proxy, its credentials.

use std::path::{Path, PathBuf};

use firebrick_source::Proxy;

/// The proxy as curl and others take it from the environment.
pub(crate) fn proxy_of_environment() -> Option<Proxy> {
    let var = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let url = var(["https_proxy", "HTTPS_PROXY"]).or_else(|| var(["all_proxy", "ALL_PROXY"]))?;
    let no_proxy = var(["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let no_proxy = no_proxy
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    Some(Proxy { url, no_proxy })
}

/// The file with the credentials for registries: `authfile`, else where podman and Docker keep it.
pub(crate) fn docker_config(authfile: Option<&Path>) -> Option<PathBuf> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    authfile
        .map(Path::to_owned)
        .or_else(|| var("REGISTRY_AUTH_FILE"))
        .or_else(|| {
            let folder = var("DOCKER_CONFIG").or_else(|| Some(var("HOME")?.join(".docker")))?;
            Some(folder.join("config.json")).filter(|file| file.is_file())
        })
}
