//! S3, and what speaks its language.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential};

use super::Setup;
use crate::error::BucketError;
use crate::profile::Profile;
use crate::trouble::Trouble;

/// Variables that go to the library as they are.
const VARIABLES: [(Key, &[&str]); 11] = [
    (Key::WebIdentityTokenFile, &["AWS_WEB_IDENTITY_TOKEN_FILE"]),
    (Key::RoleArn, &["AWS_ROLE_ARN"]),
    (Key::RoleSessionName, &["AWS_ROLE_SESSION_NAME"]),
    (Key::StsEndpoint, &["AWS_ENDPOINT_URL_STS"]),
    (
        Key::ContainerCredentialsRelativeUri,
        &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    ),
    (
        Key::ContainerCredentialsFullUri,
        &["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
    ),
    (
        Key::ContainerAuthorizationTokenFile,
        &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
    ),
    (
        Key::MetadataEndpoint,
        &["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"],
    ),
    (Key::RequestPayer, &["AWS_REQUEST_PAYER"]),
    (Key::SkipSignature, &["AWS_SKIP_SIGNATURE"]),
    (Key::S3Express, &["AWS_S3_EXPRESS"]),
];
/// How the store is to encrypt what it keeps.
const ENCRYPTION: [&str; 4] = [
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
];

pub(super) fn builder(setup: &Setup<'_>) -> Result<AmazonS3Builder, BucketError> {
    let options = setup.options;
    let profile = Profile::read(options)?;
    let bucket = &setup.address.bucket;
    let region = options
        .variable(&["AWS_REGION", "AWS_DEFAULT_REGION"])
        .or_else(|| profile.get("region"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.unwrap_or("us-east-1"))
        // One request for each: not every store knows the other.
        .with_disable_bulk_delete(true)
        .with_http_connector(setup.wire.clone());
    for (key, names) in VARIABLES {
        if let Some(value) = options.variable(names) {
            builder = builder.with_config(key, value);
        }
    }
    for name in ENCRYPTION {
        let key = name.to_ascii_lowercase().parse::<Key>();
        if let (Some(value), Ok(key)) = (options.variable(&[name]), key) {
            builder = builder.with_config(key, value);
        }
    }
    builder = credentials(setup, &profile, builder)?;

    let custom = options
        .variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
        .or_else(|| profile.get("endpoint_url"));
    let in_host = bucket_in_host(setup, &profile, custom.is_some());
    let is_tls = match custom {
        None => true,
        Some(endpoint) => {
            let (endpoint, is_tls) = setup.endpoint("AWS_ENDPOINT_URL", endpoint)?;
            // The library wants the bucket's name in the endpoint then; the AWS tools do not.
            let endpoint = match endpoint.split_once("://") {
                Some((scheme, host)) if in_host => format!("{scheme}://{bucket}.{host}"),
                _ => endpoint,
            };
            builder = builder.with_endpoint(endpoint);
            is_tls
        }
    };
    Ok(builder
        .with_virtual_hosted_style_request(in_host)
        .with_allow_http(!is_tls)
        // TLS keeps what is sent whole, so that a digest of it all need not be signed as well.
        .with_unsigned_payload(is_tls))
}

/// Whether the bucket's name stands in the host (Amazon's way now) or in the path (what other stores expect).
fn bucket_in_host(setup: &Setup<'_>, profile: &Profile, is_custom: bool) -> bool {
    if setup
        .options
        .variable(&["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"])
        .is_some()
    {
        return setup.options.says_yes(&["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]);
    }
    match profile.get("s3.addressing_style") {
        Some("path") => false,
        Some("virtual") => true,
        // A certificate for *.s3.amazonaws.com does not hold for a name with a dot.
        _ => !is_custom && !setup.address.bucket.contains('.'),
    }
}

/// The first of: keys in variables, keys in the profile, and what the library finds: web identity, containers, the machine.
fn credentials(
    setup: &Setup<'_>,
    profile: &Profile,
    builder: AmazonS3Builder,
) -> Result<AmazonS3Builder, BucketError> {
    let options = setup.options;
    let variables = [
        ["AWS_ACCESS_KEY_ID"],
        ["AWS_SECRET_ACCESS_KEY"],
        ["AWS_SESSION_TOKEN"],
    ]
    .map(|name| options.variable(&name));
    let keys =
        ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"].map(|key| profile.get(key));
    let found = match variables {
        [None, None, _] => keys,
        found => found,
    };
    if variables[..2] == [None, None]
        && let Some(by) = profile.unsupported()
    {
        return Err(BucketError::Profile {
            profile: profile.name.clone(),
            by,
        });
    }
    let mut builder = builder;
    for (key, value) in [Key::AccessKeyId, Key::SecretAccessKey, Key::Token]
        .into_iter()
        .zip(found)
    {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    for (key, name) in [
        (Key::WebIdentityTokenFile, "web_identity_token_file"),
        (Key::RoleArn, "role_arn"),
    ] {
        if let Some(value) = profile.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    let elsewhere = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    let is_known =
        found[0].is_some() || found[1].is_some() || profile.get("web_identity_token_file").is_some();
    if !is_known && options.variable(&elsewhere).is_none() && options.says_yes(&["AWS_EC2_METADATA_DISABLED"])
    {
        builder = builder.with_credentials(Arc::new(Nobody));
    }
    Ok(builder)
}

/// Credentials where nobody may be asked for them.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl CredentialProvider for Nobody {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let why = "AWS_EC2_METADATA_DISABLED forbids to ask the machine".to_owned();
        Err(object_store::Error::Generic {
            store: "S3",
            source: Box::new(Trouble::NoCredentials { why }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::options::Options;

    /// Endpoint, whether the name is in the host, and whether bodies go unsigned.
    fn built(address: &str, variables: &[(&str, &str)]) -> (String, String, String) {
        let own = |text: &str| text.to_owned();
        let variables = variables
            .iter()
            .map(|(name, value)| (own(name), own(value)))
            .collect();
        let options = Options {
            variables,
            system_ca: false,
            ..Options::default()
        };
        let setup = Setup {
            text: address,
            address: &Address::parse(address).unwrap(),
            options: &options,
            wire: &crate::client::wire(address, &options).unwrap(),
        };
        let builder = builder(&setup).unwrap();
        let keys = [
            Key::Endpoint,
            Key::VirtualHostedStyleRequest,
            Key::UnsignedPayload,
        ];
        let [endpoint, in_host, unsigned] =
            keys.map(|key| builder.get_config_value(&key).unwrap_or_default());
        (endpoint, in_host, unsigned)
    }

    #[test]
    fn where_the_buckets_name_stands() {
        let (plain, tls) = ("http://127.0.0.1:1/", "https://s3.example.org");
        let in_host = ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true");
        for (address, variables, endpoint, is_in_host, unsigned) in [
            ("s3://b", vec![], "", "true", "true"),
            ("s3://b.c", vec![], "", "false", "true"),
            ("s3://b", vec![("AWS_ENDPOINT_URL", tls)], tls, "false", "true"),
            (
                "s3://b",
                vec![("AWS_ENDPOINT_URL", plain)],
                "http://127.0.0.1:1",
                "false",
                "false",
            ),
            (
                "s3://b",
                vec![("AWS_ENDPOINT_URL_S3", tls), ("AWS_ENDPOINT_URL", plain)],
                tls,
                "false",
                "true",
            ),
            (
                "s3://b",
                vec![("AWS_ENDPOINT_URL", tls), in_host],
                "https://b.s3.example.org",
                "true",
                "true",
            ),
            (
                "s3://b",
                vec![("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false")],
                "",
                "false",
                "true",
            ),
        ] {
            let expected = (endpoint.to_owned(), is_in_host.to_owned(), unsigned.to_owned());
            assert_eq!(built(address, &variables), expected, "{address} {variables:?}");
        }
    }
}
