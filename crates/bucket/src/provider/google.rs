//! Google Cloud Storage.

use std::path::Path;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};

use super::Setup;
use crate::error::BucketError;

/// Variables that name credentials, the first that is set counts.
const CREDENTIALS: [(Key, &[&str]); 4] = [
    (
        Key::BearerToken,
        &["GOOGLE_BEARER_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"],
    ),
    (Key::ServiceAccountKey, &["GOOGLE_SERVICE_ACCOUNT_KEY"]),
    (
        Key::ServiceAccount,
        &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"],
    ),
    (Key::ApplicationCredentials, &["GOOGLE_APPLICATION_CREDENTIALS"]),
];

pub(super) fn builder(setup: &Setup<'_>) -> Result<GoogleCloudStorageBuilder, BucketError> {
    let options = setup.options;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&setup.address.bucket)
        .with_http_connector(setup.wire.clone());
    let named = CREDENTIALS
        .into_iter()
        .find_map(|(key, names)| Some((key, options.variable(names)?)));
    let emulator = options.variable(&["STORAGE_EMULATOR_HOST"]);
    let is_anonymous =
        options.says_yes(&["GOOGLE_SKIP_SIGNATURE"]) || (emulator.is_some() && named.is_none());
    match named {
        // Not `with_skip_signature`: with it the library (0.14) still looks for credentials before it writes.
        _ if is_anonymous => builder = builder.with_bearer_token(""),
        Some((key, value)) => builder = builder.with_config(key, value),
        None => {
            // What `gcloud auth application-default login` leaves.
            let folder = match options.variable(&["CLOUDSDK_CONFIG"]) {
                Some(folder) => Some(Path::new(folder).to_owned()),
                None => options
                    .variable(&["HOME"])
                    .map(|home| Path::new(home).join(".config/gcloud")),
            };
            let file = folder.map(|folder| folder.join("application_default_credentials.json"));
            if let Some(file) = file.filter(|file| file.exists()) {
                builder = builder.with_application_credentials(file.to_string_lossy());
            }
        }
    }
    let names = [
        "GOOGLE_BASE_URL",
        "STORAGE_EMULATOR_HOST",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE",
    ];
    if let Some(base) = options.variable(&names) {
        // The emulators' variable may have no scheme.
        let base = if base.contains("://") {
            base.to_owned()
        } else {
            format!("http://{base}")
        };
        let (base, _) = setup.endpoint("STORAGE_EMULATOR_HOST", &base)?;
        builder = builder.with_base_url(&base);
    }
    Ok(builder)
}
