//! Where credentials are found, each way with a store that wants them.

use firebrick_bucket::{Bucket, BucketError};
use firebrick_store::{ObjectError, Objects as _};
use firebrick_testkit::fault::{Answer, Server};
use firebrick_testkit::stores::{self, S3_KEYS, Store};

use crate::support::{open, options, with};

/// Variables that lead to the store, without its keys.
fn without_keys(store: &Store, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let nothing = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    with(&with(&store.variables(), &nothing), more)
}

/// Everybody who may give a machine its keys: EC2's metadata, a container's, and the service that takes web identities.
fn machine() -> Server {
    let [key, secret] = S3_KEYS;
    let credentials = serde_json::json!({
        "AccessKeyId": key, "SecretAccessKey": secret, "Token": "", "Expiration": "2999-01-01T00:00:00Z",
    });
    Server::start(move |request| match (request.method.as_str(), request.path()) {
        ("PUT", "/latest/api/token") => Answer::new(200, "a-session"),
        ("GET", path) if request.header("x-aws-ec2-metadata-token") == Some("a-session") => match path {
            "/latest/meta-data/iam/security-credentials/" => Answer::new(200, "a-role"),
            "/latest/meta-data/iam/security-credentials/a-role" => Answer::new(200, credentials.to_string()),
            _ => Answer::new(404, ""),
        },
        ("GET", "/container") if request.header("authorization") == Some("pod-token") => Answer::new(200, credentials.to_string()),
        ("POST", _) if request.query("WebIdentityToken") == Some("web-token") => Answer::new(
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
                 <SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        ),
        _ => Answer::new(400, "<Error><Code>InvalidIdentityToken</Code></Error>"),
    })
    .unwrap()
}

#[test]
fn keys_of_s3_are_found_in_every_place() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let [key, secret] = S3_KEYS;
    let machine = machine();
    let (folder, at) = (store.folder(), format!("http://127.0.0.1:{}", machine.port()));
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    file(
        ".aws/credentials",
        &format!("[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"),
    );
    let config = format!(
        "[profile work]\nendpoint_url = http://{}\nregion = eu-west-1\n",
        store.host()
    );
    file(".aws/config", &config);
    let (web, pod) = (file("web", "web-token"), file("pod", "pod-token"));
    let home = folder.to_str().unwrap();

    for (place, more) in [
        (
            "profile",
            vec![
                ("HOME", home),
                ("AWS_PROFILE", "work"),
                ("AWS_ENDPOINT_URL", ""),
                ("AWS_REGION", ""),
            ],
        ),
        (
            "web identity",
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", web.as_str()),
                ("AWS_ROLE_ARN", "arn:x"),
                ("AWS_ENDPOINT_URL_STS", &at),
            ],
        ),
        (
            "container",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*format!("{at}/container")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod),
            ],
        ),
        (
            "machine",
            vec![
                ("AWS_EC2_METADATA_DISABLED", ""),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &at),
            ],
        ),
    ] {
        let bucket = open("s3://fbtest", without_keys(&store, &more));
        let put = bucket.put(place, b"x".to_vec());
        put.unwrap_or_else(|error| panic!("{place}: {error:?}"));
    }
    assert_eq!(open("s3://fbtest", store.variables()).list("").unwrap().len(), 4);
}

/// A token that is not taken is the credentials' fault, and nobody else's.
#[test]
fn a_web_identity_may_be_refused() {
    let machine = machine();
    let at = format!("http://127.0.0.1:{}", machine.port());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "other-token").unwrap();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path().to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:x"),
        ("AWS_ENDPOINT_URL_STS", &at),
    ];
    let error = open("s3://fbtest", with(&[], &variables))
        .put("k", Vec::new())
        .unwrap_err();
    assert!(matches!(error, ObjectError::BadCredentials { .. }), "{error:?}");
}

#[test]
fn where_there_are_no_credentials_it_is_said_soon() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refusing = Server::start(|_| Answer::new(404, "")).unwrap();
    let pairs = |pairs: &[(&str, &str)]| with(&[], pairs);
    let (closed, refusing) = (
        format!("http://{closed}"),
        format!("http://127.0.0.1:{}", refusing.port()),
    );
    let began = std::time::Instant::now();
    for (address, variables) in [
        ("s3://b", pairs(&[("AWS_EC2_METADATA_DISABLED", "true")])),
        ("s3://b", pairs(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &closed)])),
        (
            "s3://b",
            pairs(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &refusing)]),
        ),
        (
            "az://b",
            pairs(&[("AZURE_STORAGE_ACCOUNT", "joe"), ("IDENTITY_ENDPOINT", &closed)]),
        ),
    ] {
        let bucket = open(address, variables);
        for error in [
            bucket.list("").unwrap_err(),
            bucket.swap("k", Vec::new(), None).map(|_| ()).unwrap_err(),
        ] {
            assert!(
                matches!(error, ObjectError::NoCredentials { .. }),
                "{address}: {error:?}"
            );
        }
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn what_cannot_be_opened() {
    let opened = |address: &str, pairs: &[(&str, &str)]| Bucket::open(address, options(with(&[], pairs)));
    let error = opened("s3://b", &[("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")]).unwrap_err();
    assert!(
        matches!(&error, BucketError::PlainHttp { endpoint } if endpoint == "http://192.0.2.1:9000"),
        "{error}"
    );
    opened(
        "s3://b",
        &[
            ("AWS_ENDPOINT_URL", "http://192.0.2.1:9000"),
            ("AWS_ALLOW_HTTP", "true"),
        ],
    )
    .unwrap();
    opened("s3://b", &[("AWS_ENDPOINT_URL", "https://192.0.2.1:9000")]).unwrap();
    for endpoint in ["nonsense", "ftp://127.0.0.1", "https://"] {
        let error = opened("s3://b", &[("AWS_ENDPOINT_URL", endpoint)]).unwrap_err();
        assert!(matches!(error, BucketError::Option { .. }), "{endpoint}: {error}");
    }
    let error = opened("az://box", &[]).unwrap_err();
    assert!(matches!(error, BucketError::NoAccount { .. }), "{error}");
    let string = [(
        "AZURE_STORAGE_CONNECTION_STRING",
        "AccountName=joe;AccountKey=c2VjcmV0",
    )];
    let error = opened("az://box@jim", &string).unwrap_err();
    assert!(matches!(error, BucketError::Option { .. }), "{error}");
    let error = opened("s3://b", &[("AWS_ACCESS_KEY_ID", "k")]).unwrap_err();
    assert!(matches!(error, BucketError::Refused { .. }), "{error}");
    let error = opened("gs://b", &[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")]).unwrap_err();
    assert!(matches!(error, BucketError::Refused { .. }), "{error}");
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[profile sso]\nsso_session = x\n").unwrap();
    let named = [
        ("AWS_CONFIG_FILE", config.path().to_str().unwrap()),
        ("AWS_PROFILE", "sso"),
    ];
    let error = opened("s3://b", &named).unwrap_err();
    assert!(
        matches!(
            &error,
            BucketError::Profile {
                by: "sso_session",
                ..
            }
        ),
        "{error}"
    );
    let error = opened("s3://b", &[named[0], ("AWS_PROFILE", "nobody")]).unwrap_err();
    assert!(matches!(error, BucketError::NoProfile { .. }), "{error}");
}
