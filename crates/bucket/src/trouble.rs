//! What goes wrong between us and a server, before the library sees it.

use reqwest::StatusCode;

/// How much of a server's words is shown, in characters.
const SHOWN: usize = 300;

/// Why a request did not get the answer that it wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The server answered that it will not, and asking again would not help.
    #[error("{0}")]
    Refused(Refusal),
    /// No connection.
    #[error("{endpoint} is not reached")]
    Unreachable {
        endpoint: String,
        source: reqwest::Error,
    },
    /// The connection ended in the middle.
    #[error("the connection to {endpoint} broke")]
    Broken {
        endpoint: String,
        source: reqwest::Error,
    },
    /// A connection on which nothing came any more.
    #[error("{endpoint} said nothing for {seconds} s")]
    Silent { endpoint: String, seconds: u64 },
    /// A connection on which next to nothing came.
    #[error("{endpoint} sent {bytes} bytes in {seconds} s")]
    Slow {
        endpoint: String,
        bytes: u64,
        seconds: u64,
    },
    /// An answer that is longer than it can rightly be.
    #[error("{endpoint} answers with more than {limit} bytes")]
    TooMuch { endpoint: String, limit: u64 },
    /// An address without TLS that is not this machine.
    #[error("{endpoint} has no TLS")]
    PlainHttp { endpoint: String },
    /// No key is set, and the machine has none to give.
    #[error("no key is set, and {why}")]
    NoCredentials { why: String },
}

impl Trouble {
    /// Who was asked.
    pub(crate) fn endpoint(&self) -> &str {
        match self {
            Trouble::Refused(refusal) => &refusal.endpoint,
            Trouble::Unreachable { endpoint, .. }
            | Trouble::Broken { endpoint, .. }
            | Trouble::Silent { endpoint, .. }
            | Trouble::Slow { endpoint, .. }
            | Trouble::TooMuch { endpoint, .. }
            | Trouble::PlainHttp { endpoint } => endpoint,
            Trouble::NoCredentials { .. } => "",
        }
    }

    /// All that is known of it in one line: the innermost cause is what tells.
    pub(crate) fn words(&self) -> String {
        let mut last = None;
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            last = Some(error.to_string());
            next = error.source();
        }
        match last {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// A server's answer that it will not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Scheme, host and port.
    pub(crate) endpoint: String,
    pub(crate) status: u16,
    /// The provider's word for it, `AccessDenied`; maybe empty.
    pub(crate) code: String,
    /// Its sentence for people; maybe empty.
    pub(crate) message: String,
    /// The region that the bucket is in, where the answer tells.
    pub(crate) region: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers {}", self.endpoint, self.status)?;
        for words in [&self.code, &self.message] {
            if !words.is_empty() {
                write!(f, ": {words}")?;
            }
        }
        Ok(())
    }
}

impl Refusal {
    /// What an answer says. `body` may be cut; it is XML, JSON, or anything.
    pub(crate) fn read(
        endpoint: &str,
        status: StatusCode,
        headers: &reqwest::header::HeaderMap,
        body: &str,
    ) -> Refusal {
        let header = |name: &str| headers.get(name)?.to_str().ok().map(shown);
        let xml = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            let (text, _) = rest.split_once('<')?;
            Some(shown(text)).filter(|text| !text.is_empty())
        };
        let code = header("x-ms-error-code")
            .or_else(|| xml("Code"))
            .or_else(|| json(body, "error"));
        let message = xml("Message")
            .or_else(|| json(body, "error_description"))
            .or_else(|| json(body, "message"));
        // What has neither form is shown as it is.
        let message = message.unwrap_or_else(|| {
            if code.is_none() {
                shown(body)
            } else {
                String::new()
            }
        });
        Refusal {
            endpoint: endpoint.to_owned(),
            status: status.as_u16(),
            code: code.unwrap_or_default(),
            message,
            region: header("x-amz-bucket-region").or_else(|| xml("Region")),
        }
    }

    /// Whether the bucket is not there.
    pub(crate) fn no_bucket(&self) -> bool {
        let google = self.status == 404 && self.message.contains("bucket does not exist");
        matches!(self.code.as_str(), "NoSuchBucket" | "ContainerNotFound") || google
    }

    /// Whether the bucket is in another region than the one that was asked.
    pub(crate) fn wrong_region(&self) -> bool {
        let codes = [
            "PermanentRedirect",
            "TemporaryRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ];
        codes.contains(&self.code.as_str()) || (self.status == 301 && self.region.is_some())
    }

    /// Whether the key itself is wrong or over, and not only what it may do.
    pub(crate) fn bad_credentials(&self) -> bool {
        let codes = [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidToken",
            "InvalidIdentityToken",
            "TokenRefreshRequired",
            "RequestTimeTooSkewed",
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
            "invalid_grant",
            "invalid_client",
        ];
        codes.contains(&self.code.as_str()) || self.status == 401
    }
}

/// The text behind `"name":` in a JSON object, without looking further into what JSON is.
fn json(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    let (text, _) = rest.split_once('"')?;
    Some(shown(text))
}

/// A server's words, shortened, in one line, without what would steer a terminal.
fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> Refusal {
        let mut map = reqwest::header::HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Refusal::read("https://e", StatusCode::from_u16(status).unwrap(), &map, body)
    }

    #[test]
    fn what_providers_say() {
        let s3 = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket\n does not exist</Message></Error>";
        let refusal = read(404, &[], s3);
        assert!(refusal.no_bucket());
        assert_eq!(
            refusal.to_string(),
            "https://e answers 404: NoSuchBucket: The specified bucket does not exist"
        );
        let azure = read(404, &[("x-ms-error-code", "ContainerNotFound")], "");
        assert!(azure.no_bucket() && azure.message.is_empty());
        let moved = read(301, &[("x-amz-bucket-region", "eu-west-1")], "");
        assert!(moved.wrong_region());
        assert_eq!(moved.region.as_deref(), Some("eu-west-1"));
        let malformed = read(
            400,
            &[],
            "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>",
        );
        assert!(malformed.wrong_region());
        assert_eq!(malformed.region.as_deref(), Some("eu-west-3"));
        let denied = read(403, &[], "<Code>AccessDenied</Code>");
        assert!(!denied.bad_credentials() && !denied.wrong_region() && !denied.no_bucket());
        assert!(read(403, &[], "<Code>SignatureDoesNotMatch</Code>").bad_credentials());
        let token = read(
            400,
            &[],
            r#"{"error": "invalid_grant", "error_description":"Token expired"}"#,
        );
        assert!(token.bad_credentials());
        assert_eq!(token.message, "Token expired");
    }

    #[test]
    fn hostile_words_are_shortened_and_tame() {
        let long = "x".repeat(10_000);
        assert_eq!(read(403, &[], &long).message.len(), SHOWN);
        assert_eq!(read(403, &[], "a\u{1b}[31mb\r\nc").message, "a[31mb c");
        for cut in [
            "<Code>",
            "<Code",
            "\"error\"",
            "\"error\":",
            "\"error\":\"",
            "<Message>x",
        ] {
            assert_eq!(read(500, &[], cut).code, "", "{cut}");
        }
    }
}
