//! The proxy of this process.

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
