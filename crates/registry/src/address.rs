//! Web addresses: what is shown of them, where they lead, whether they mean this machine.

use ureq::http::{HeaderMap, Uri, header};

/// An address without its query, which may hold a signature that lets others in.
pub(crate) fn shown(url: &str) -> String {
    url.split(['?', '#'])
        .next()
        .unwrap_or("")
        .chars()
        .take(300)
        .collect()
}

/// Whether a host with maybe a port is one of the names of this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// Whether both are of the same server: whoever may hear a secret of one.
pub(crate) fn same_origin(one: &Uri, other: &Uri) -> bool {
    origin(one) == origin(other)
}

fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let default = match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let host = uri.host().map(str::to_ascii_lowercase);
    (uri.scheme_str(), host, uri.port_u16().or(default))
}

/// Resolves a redirect's target (<https://www.rfc-editor.org/rfc/rfc3986#section-5>, without dot segments, which
/// servers resolve themselves).
pub(crate) fn join(base: &Uri, location: &str) -> Option<String> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if location.is_empty() {
        return None;
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    if location.contains("://") {
        return Some(location.to_owned());
    }
    if location.starts_with('?') {
        return Some(format!("{scheme}://{authority}{}{location}", base.path()));
    }
    let folder = base
        .path()
        .rfind('/')
        .and_then(|slash| base.path().get(..=slash))
        .unwrap_or("/");
    Some(format!("{scheme}://{authority}{folder}{location}"))
}

/// Where a list goes on (<https://www.rfc-editor.org/rfc/rfc8288#section-3>).
pub(crate) fn next_page(headers: &HeaderMap) -> Option<String> {
    let values = headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for value in values {
        let mut rest = value;
        while let Some((_, after)) = rest.split_once('<') {
            let (target, after) = after.split_once('>')?;
            // The parameters end where the next link begins.
            let (parameters, next) = after.split_at(after.find('<').unwrap_or(after.len()));
            let is_next = parameters.split([';', ',']).any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let mut relations = value.trim().trim_matches('"').split(' ');
                name.trim().eq_ignore_ascii_case("rel")
                    && relations.any(|word| word.eq_ignore_ascii_case("next"))
            });
            if is_next {
                return Some(target.to_owned());
            }
            rest = next;
        }
    }
    None
}

/// For a value in a query.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets() {
        let base: Uri = "https://a.io:8443/v2/x/blobs/1?q".parse().unwrap();
        for (location, expected) in [
            ("https://b.io/y?s=1#f", Some("https://b.io/y?s=1")),
            ("//b.io/y", Some("https://b.io/y")),
            ("/y", Some("https://a.io:8443/y")),
            ("y?z", Some("https://a.io:8443/v2/x/blobs/y?z")),
            ("?z", Some("https://a.io:8443/v2/x/blobs/1?z")),
            ("", None),
            ("#f", None),
        ] {
            assert_eq!(join(&base, location).as_deref(), expected, "{location:?}");
        }
    }

    #[test]
    fn origins() {
        let same = |one: &str, other: &str| same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        for other in ["https://a.io/x?y", "https://A.io:443/", "HTTPS://a.io"] {
            assert!(same("https://a.io/v2/", other), "{other}");
        }
        for other in [
            "http://a.io/",
            "http://a.io:443/",
            "https://a.io:8443/",
            "https://b.a.io/",
            "https://a.io.evil/",
        ] {
            assert!(!same("https://a.io/v2/", other), "{other}");
        }
    }

    #[test]
    fn loopback_is_by_name_only() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil.io",
            "127.0.0.1.evil.io:1",
            "127.0.0.2",
            "::1",
            "evil.io",
            "[::2]:5000",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn shown_addresses_hold_no_signature() {
        assert_eq!(shown("https://a.io/b?X-Amz-Signature=s3cret"), "https://a.io/b");
    }

    #[test]
    fn queries() {
        assert_eq!(
            percent_encoded("repository:a/b:pull"),
            "repository%3Aa%2Fb%3Apull"
        );
    }

    #[test]
    fn where_a_list_goes_on() {
        for (value, expected) in [
            (
                r#"</v2/x/tags/list?last=b&n=2>; rel="next""#,
                Some("/v2/x/tags/list?last=b&n=2"),
            ),
            ("<https://a.io/p>;rel=next", Some("https://a.io/p")),
            (
                r#"</a>; rel="prev", </b>; title="x"; rel="next last""#,
                Some("/b"),
            ),
            (r#"</a>; rel="prev""#, None),
            ("</a", None),
            ("rel=next", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, value.parse().unwrap());
            assert_eq!(next_page(&headers).as_deref(), expected, "{value}");
        }
    }
}
