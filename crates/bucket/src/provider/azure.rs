//! Azure Blob.

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

use super::Setup;
use crate::error::BucketError;

/// Variables that go to the library as they are: the provider's own names, then the library's.
const VARIABLES: [(Key, &[&str]); 12] = [
    (
        Key::AccessKey,
        &[
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
        ],
    ),
    (Key::SasKey, &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]),
    (Key::Token, &["AZURE_STORAGE_TOKEN"]),
    (Key::ClientId, &["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"]),
    (
        Key::ClientSecret,
        &["AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET"],
    ),
    (Key::AuthorityId, &["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID"]),
    (Key::AuthorityHost, &["AZURE_AUTHORITY_HOST"]),
    (Key::FederatedTokenFile, &["AZURE_FEDERATED_TOKEN_FILE"]),
    (Key::MsiEndpoint, &["IDENTITY_ENDPOINT"]),
    (Key::ObjectId, &["AZURE_OBJECT_ID"]),
    (Key::SkipSignature, &["AZURE_SKIP_SIGNATURE"]),
    (Key::UseAzureCli, &["AZURE_USE_AZURE_CLI"]),
];
/// The account, key and endpoint that Microsoft's emulator always has are in the library.
const EMULATOR: &str = "UseDevelopmentStorage";

pub(super) fn builder(
    setup: &Setup<'_>,
    account: Option<&str>,
) -> Result<MicrosoftAzureBuilder, BucketError> {
    let options = setup.options;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&setup.address.bucket)
        .with_http_connector(setup.wire.clone());
    for (key, names) in VARIABLES {
        if let Some(value) = options.variable(names) {
            builder = builder.with_config(key, value);
        }
    }
    let string = options.variable(&["AZURE_STORAGE_CONNECTION_STRING"]);
    let string = ConnectionString::parse(string.unwrap_or(""));
    let named = options.variable(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]);
    if let (Some(account), Some(other)) = (account, string.get("AccountName"))
        && account != other
    {
        return Err(BucketError::Option {
            option: "AZURE_STORAGE_CONNECTION_STRING".to_owned(),
            what: format!("it is for the account {other}, and the address names {account}"),
        });
    }
    for (key, name) in [
        (Key::AccessKey, "AccountKey"),
        (Key::SasKey, "SharedAccessSignature"),
    ] {
        if let Some(value) = string.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    let is_emulator =
        string.get(EMULATOR) == Some("true") || options.says_yes(&["AZURE_STORAGE_USE_EMULATOR"]);
    if is_emulator {
        return Ok(builder.with_use_emulator(true));
    }
    let account = account.or_else(|| string.get("AccountName")).or(named);
    let account = account.ok_or_else(|| BucketError::NoAccount {
        address: setup.text.to_owned(),
    })?;
    builder = builder.with_account(account);
    let names = [
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_ENDPOINT",
        "AZURE_STORAGE_SERVICE_ENDPOINT",
    ];
    let endpoint = options
        .variable(&names)
        .map(str::to_owned)
        .or_else(|| string.endpoint(account));
    if let Some(endpoint) = endpoint {
        let (endpoint, is_tls) = setup.endpoint("the endpoint", &endpoint)?;
        builder = builder.with_endpoint(endpoint).with_allow_http(!is_tls);
    }
    Ok(builder)
}

/// `Name=value;Name=value`, as Azure's portal shows it for an account.
struct ConnectionString<'a>(Vec<(&'a str, &'a str)>);

impl<'a> ConnectionString<'a> {
    fn parse(text: &'a str) -> ConnectionString<'a> {
        ConnectionString(
            text.split(';')
                .filter_map(|pair| pair.trim().split_once('='))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    }

    fn endpoint(&self, account: &str) -> Option<String> {
        if let Some(endpoint) = self.get("BlobEndpoint") {
            return Some(endpoint.to_owned());
        }
        let scheme = self.get("DefaultEndpointsProtocol").unwrap_or("https");
        let suffix = self.get("EndpointSuffix")?;
        Some(format!("{scheme}://{account}.blob.{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let string = ConnectionString::parse(
            "DefaultEndpointsProtocol=https;AccountName=joe;AccountKey=ab==;EndpointSuffix=core.windows.net",
        );
        assert_eq!(string.get("accountkey"), Some("ab=="));
        assert_eq!(
            string.endpoint("joe").as_deref(),
            Some("https://joe.blob.core.windows.net")
        );
        let own = ConnectionString::parse("BlobEndpoint=http://127.0.0.1:10000/joe;;x");
        assert_eq!(own.endpoint("joe").as_deref(), Some("http://127.0.0.1:10000/joe"));
        assert_eq!(own.get("AccountName"), None);
        assert_eq!(ConnectionString::parse("").endpoint("joe"), None);
    }
}
