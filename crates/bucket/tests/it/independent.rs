//! The AWS client as a second reader and writer of what we keep, and a TLS connection to a store that signs for itself.

use std::process::Command;

use firebrick_bucket::{Bucket, Options, Proxy};
use firebrick_store::{ObjectError, Objects as _};
use firebrick_testkit::stores::{self, Store};
use firebrick_testkit::{fault, oracle};

use crate::support::{noise, open, options};

fn aws(store: &Store, args: &[&str]) {
    let output = Command::new("aws")
        .args(args)
        .envs(store.variables())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "aws {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_aws_client_reads_what_we_write() {
    if !oracle::have("aws").unwrap() {
        return;
    }
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let bucket = open("s3://fbtest/mine", store.variables());
    let bytes = noise(9 << 20);
    let [ours, theirs, copy] = ["ours", "theirs", "copy"].map(|name| store.folder().join(name));
    std::fs::write(&ours, &bytes).unwrap();
    bucket
        .put_file("sub/ours", &std::fs::File::open(&ours).unwrap(), &|_| ())
        .unwrap();
    aws(
        &store,
        &[
            "s3",
            "cp",
            "--quiet",
            "s3://fbtest/mine/sub/ours",
            copy.to_str().unwrap(),
        ],
    );
    assert!(std::fs::read(&copy).unwrap() == bytes);

    std::fs::write(&theirs, &bytes[5..]).unwrap();
    aws(
        &store,
        &[
            "s3",
            "cp",
            "--quiet",
            theirs.to_str().unwrap(),
            "s3://fbtest/mine/sub/theirs",
        ],
    );
    assert!(bucket.get("sub/theirs", 9 << 20).unwrap().unwrap().0 == bytes[5..]);
    assert_eq!(bucket.list("sub/").unwrap().len(), 2);
}

#[test]
fn tls_with_a_private_authority() {
    let Some(store) = stores::seaweed_with_tls().unwrap() else {
        return;
    };
    let trusting = || Options {
        ca_files: vec![store.folder().join("ca.pem")],
        ..options(store.variables())
    };
    let bucket = Bucket::open("s3://fbtest", trusting()).unwrap();
    bucket.put("k", noise(100_000)).unwrap();
    assert_eq!(bucket.get("k", 100_000).unwrap().unwrap().0, noise(100_000));
    crate::contract::files(&bucket, 9 << 20);

    let began = std::time::Instant::now();
    let error = open("s3://fbtest", store.variables()).size("k").unwrap_err();
    let words = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        matches!(error, ObjectError::Unreachable { .. }) && words.contains("certificate"),
        "{error:?}"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(2));

    // Loopback is never asked through a proxy, whoever set one.
    let proxy = fault::Server::start(|_| fault::Answer::new(500, "")).unwrap();
    let url = format!("http://joe:s3cret@127.0.0.1:{}", proxy.port());
    let no_proxy = Vec::new();
    let by_proxy = Options {
        proxy: Some(Proxy { url, no_proxy }),
        ..trusting()
    };
    assert_eq!(
        Bucket::open("s3://fbtest", by_proxy).unwrap().size("k").unwrap(),
        Some(100_000)
    );
    assert_eq!(proxy.requests().len(), 0);
}

/// A name that is nobody's is left to the proxy to find; what it gets says that a tunnel is asked for.
#[test]
fn a_proxy_is_asked_for_tunnels() {
    let proxy = fault::Server::start(|_| fault::Answer::new(403, "no tunnels here")).unwrap();
    let mut options = options(vec![
        ("AWS_ACCESS_KEY_ID".to_owned(), "k".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "s".to_owned()),
        ("AWS_ENDPOINT_URL".to_owned(), "https://store.invalid".to_owned()),
    ]);
    options.retry.retries = 0;
    options.proxy = Some(Proxy {
        url: format!("http://joe:s3cret@127.0.0.1:{}", proxy.port()),
        no_proxy: Vec::new(),
    });
    let error = Bucket::open("s3://b", options).unwrap().size("k").unwrap_err();
    assert!(
        matches!(&error, ObjectError::Unreachable { endpoint, .. } if endpoint == "https://store.invalid"),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    let asked = proxy.requests();
    assert_eq!(
        (asked[0].method.as_str(), asked[0].target.as_str()),
        ("CONNECT", "store.invalid:443")
    );
    assert_eq!(
        asked[0].header("proxy-authorization"),
        Some("Basic am9lOnMzY3JldA==")
    );
}
