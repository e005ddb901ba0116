//! Addresses of buckets: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.

use crate::error::BucketError;

/// Whose bucket it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Provider {
    S3,
    Google,
    /// Azure, with the account where the address names it.
    Azure {
        account: Option<String>,
    },
}

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) provider: Provider,
    /// The bucket, or Azure's container.
    pub(crate) bucket: String,
    /// Parts joined by `/`, without one at either end; maybe empty.
    pub(crate) prefix: String,
}

/// The hosts behind an account's name in `abfss:` addresses.
const AZURE_HOSTS: [&str; 2] = [".dfs.core.windows.net", ".blob.core.windows.net"];

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Address, BucketError> {
        let wrong = |what| BucketError::Address {
            address: text.to_owned(),
            what,
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no ://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "?#%".contains(c))
        {
            return Err(wrong("it has a space or one of ?#%"));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong("its prefix has an empty part, or one of dots"));
        }
        let (provider, bucket) = match scheme {
            "s3" => (Provider::S3, bucket),
            "gs" => (Provider::Google, bucket),
            "az" | "abfs" | "abfss" => azure(bucket)
                .ok_or_else(|| wrong("its account has another form than ACCOUNT.dfs.core.windows.net"))?,
            _ => return Err(wrong("only s3, gs, az and abfss are known")),
        };
        let plain =
            |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (c == '$' && scheme.starts_with('a'));
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(plain) || bucket.starts_with('.') {
            return Err(wrong("the name of its bucket is none"));
        }
        Ok(Address {
            provider,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// `CONTAINER`, `CONTAINER@ACCOUNT` or `CONTAINER@ACCOUNT.dfs.core.windows.net`.
fn azure(authority: &str) -> Option<(Provider, &str)> {
    let Some((container, host)) = authority.split_once('@') else {
        return Some((Provider::Azure { account: None }, authority));
    };
    let account = AZURE_HOSTS
        .iter()
        .find_map(|end| host.strip_suffix(end))
        .unwrap_or(host);
    let plain = !account.is_empty()
        && account
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    plain.then(|| {
        let account = Some(account.to_owned());
        (Provider::Azure { account }, container)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let azure = |account: Option<&str>| Provider::Azure {
            account: account.map(str::to_owned),
        };
        for (text, provider, bucket, prefix) in [
            ("s3://b", Provider::S3, "b", ""),
            ("s3://my.bucket-1/", Provider::S3, "my.bucket-1", ""),
            ("s3://b/a/b_c/", Provider::S3, "b", "a/b_c"),
            ("gs://b/x", Provider::Google, "b", "x"),
            ("az://box/x/y", azure(None), "box", "x/y"),
            ("az://$root/x", azure(None), "$root", "x"),
            ("az://box@joe1/x", azure(Some("joe1")), "box", "x"),
            (
                "abfss://box@joe.dfs.core.windows.net/x",
                azure(Some("joe")),
                "box",
                "x",
            ),
            (
                "az://box@joe.blob.core.windows.net",
                azure(Some("joe")),
                "box",
                "",
            ),
        ] {
            let expected = Address {
                provider,
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            };
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "bucket",
            "s3:/b",
            "s3://",
            "s3:///x",
            "http://b/x",
            "s3://b//x",
            "s3://b/x//",
            "s3://b/../x",
            "s3://b/.",
            "s3://b/x?y",
            "s3://b/x#y",
            "s3://b/x y",
            "s3://b/%2e%2e",
            "s3://u:p@b/x",
            "s3://b:80/x",
            "s3://$root",
            "s3://../x",
            "az://box@/x",
            "az://box@joe.example.org/x",
            "az://@joe/x",
            "s3://b/\n",
        ] {
            assert!(
                matches!(Address::parse(text), Err(BucketError::Address { .. })),
                "{text:?}"
            );
        }
    }
}
