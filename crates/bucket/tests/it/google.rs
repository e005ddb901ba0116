//! Google Cloud Storage, against the scripted server: no emulator that can be installed here knows conditions in this interface.

use firebrick_store::{ObjectError, Objects as _};
use firebrick_testkit::oracle;

use crate::contract;
use crate::memory::{self, Conditions};
use crate::support::open;

fn variables(port: u16, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let host = format!("127.0.0.1:{port}");
    let all = [("STORAGE_EMULATOR_HOST", host.as_str())]
        .into_iter()
        .chain(more.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_google_bucket_keeps_the_contract() {
    let server = memory::start(Conditions::Kept, |request| {
        match request.header("authorization") {
            Some("Bearer a-token") => Ok(()),
            other => Err(format!("not with {other:?}")),
        }
    });
    let bucket = open(
        "gs://fbtest/some/prefix",
        variables(server.port(), &[("GOOGLE_BEARER_TOKEN", "a-token")]),
    );
    contract::check(&bucket);
    contract::race(&bucket, 8);
    contract::files(&bucket, 20 << 20);
    // Conditions are Google's own: a generation, and zero for none.
    let requests = server.requests();
    let conditions: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.header("x-goog-if-generation-match"))
        .collect();
    assert!(
        conditions.contains(&"0") && conditions.iter().any(|condition| *condition != "0"),
        "{conditions:?}"
    );
    let is_missing = open(
        "gs://other",
        variables(server.port(), &[("GOOGLE_BEARER_TOKEN", "a-token")]),
    )
    .list("")
    .unwrap_err();
    assert!(
        matches!(is_missing, ObjectError::NoBucket { .. }),
        "{is_missing:?}"
    );

    let anonymous = open("gs://fbtest", variables(server.port(), &[]));
    let error = anonymous.put("k", Vec::new()).unwrap_err();
    assert!(
        matches!(error, ObjectError::Denied { action: "write", .. }),
        "{error:?}"
    );
}

#[test]
fn a_google_service_account_signs_by_its_key() {
    if !oracle::have("openssl").unwrap() {
        return;
    }
    let server = memory::start(Conditions::Kept, |request| {
        let bearer = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        // A JSON web token that the key's holder made: header, claims, signature.
        let parts = bearer.map_or(0, |token| token.split('.').filter(|part| part.len() > 20).count());
        if parts == 3 {
            Ok(())
        } else {
            Err(format!("not with {bearer:?}"))
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let key = oracle::run_ok(
        "openssl",
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    )
    .unwrap();
    let account = serde_json::json!({
        "type": "service_account",
        "private_key": key,
        "private_key_id": "1",
        "client_email": "joe@example.org",
    });
    let path = folder.path().join("key.json");
    std::fs::write(&path, account.to_string()).unwrap();
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())];
    let bucket = open("gs://fbtest", variables(server.port(), &named));
    bucket.put("k", b"x".to_vec()).unwrap();

    // The same file where `gcloud auth application-default login` leaves it.
    let home = folder.path().join(".config/gcloud");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::rename(&path, home.join("application_default_credentials.json")).unwrap();
    let named = [
        ("HOME", folder.path().to_str().unwrap()),
        ("GOOGLE_SKIP_SIGNATURE", ""),
    ];
    let mut variables = variables(server.port(), &named);
    // Emulators are asked without credentials, a base address is not.
    variables[0] = (
        "GOOGLE_BASE_URL".to_owned(),
        format!("http://127.0.0.1:{}", server.port()),
    );
    let bucket = open("gs://fbtest", variables);
    assert_eq!(bucket.size("k").unwrap(), Some(1));
}
