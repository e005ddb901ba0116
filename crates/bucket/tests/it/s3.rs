//! S3, judged by SeaweedFS.

use firebrick_bucket::Bucket;
use firebrick_store::{ObjectError, Objects as _};
use firebrick_testkit::stores;

use crate::contract;
use crate::support::{open, options, with};

#[test]
fn an_s3_bucket_keeps_the_contract() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let bucket = open("s3://fbtest/some/prefix", store.variables());
    contract::check(&bucket);
    contract::race(&bucket, 8);
    contract::files(&bucket, 40 << 20);
    // All of it lies below the prefix.
    let whole = open("s3://fbtest/", store.variables());
    let entries = whole.list("").unwrap();
    assert!(
        entries.iter().all(|entry| entry.key.starts_with("some/prefix/")),
        "{entries:?}"
    );
    assert_eq!(entries.len(), bucket.list("").unwrap().len());
}

#[test]
fn listings_of_s3_have_more_than_one_page() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let bucket = open("s3://fbtest/pages", store.variables());
    let keys: Vec<String> = (0..1_203).map(|number| format!("n/{number:04}")).collect();
    std::thread::scope(|scope| {
        for part in keys.chunks(keys.len().div_ceil(8)) {
            let bucket = &bucket;
            scope.spawn(move || {
                part.iter()
                    .for_each(|key| bucket.put(key, key.clone().into_bytes()).unwrap())
            });
        }
    });
    let listed = bucket.list("n/").unwrap();
    assert!(
        listed.iter().map(|entry| &entry.key).eq(&keys),
        "{} keys",
        listed.len()
    );
}

#[test]
fn what_s3_refuses_is_told_apart() {
    let Some(store) = stores::seaweed().unwrap() else {
        return;
    };
    let variables = store.variables();
    let tell = |error: &ObjectError| {
        let text = format!("{error}: {}", std::error::Error::source(error).unwrap());
        assert!(
            text.contains(&format!("http://{} answers", store.host())),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    };
    // Who only reads: this store makes the bucket for one who writes.
    let missing = open("s3://no-such-bucket", variables.clone());
    for error in [
        missing.size("k").map(|_| ()).unwrap_err(),
        missing.get("k", 9).map(|_| ()).unwrap_err(),
        missing.get_range("k", 0..1).map(|_| ()).unwrap_err(),
        missing.list("").map(|_| ()).unwrap_err(),
    ] {
        tell(&error);
        assert!(matches!(error, ObjectError::NoBucket { .. }), "{error:?}");
    }
    let refused = |changed: &[(&str, &str)]| {
        let bucket = open("s3://fbtest", with(&variables, changed));
        let errors = [
            bucket.put("k", b"x".to_vec()).unwrap_err(),
            bucket.get("k", 9).map(|_| ()).unwrap_err(),
            bucket.get_range("k", 0..1).map(|_| ()).unwrap_err(),
            bucket.list("").map(|_| ()).unwrap_err(),
            bucket.swap("k", Vec::new(), None).map(|_| ()).unwrap_err(),
            bucket.can_swap().map(|_| ()).unwrap_err(),
        ];
        errors.iter().for_each(tell);
        errors
    };
    let errors = refused(&[("AWS_SECRET_ACCESS_KEY", "wrong-secret")]);
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, ObjectError::BadCredentials { .. })),
        "{errors:?}"
    );
    let errors = refused(&[("AWS_ACCESS_KEY_ID", "nobody")]);
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, ObjectError::BadCredentials { .. })),
        "{errors:?}"
    );

    let anonymous = with(&variables, &[("AWS_SKIP_SIGNATURE", "true")]);
    let error = Bucket::open("s3://fbtest", options(anonymous))
        .unwrap()
        .list("")
        .unwrap_err();
    assert!(
        matches!(error, ObjectError::Denied { action: "list", .. }),
        "{error:?}"
    );
}
