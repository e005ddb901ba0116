//! Who may do what: passwords, and tokens that are good for one thing.

use firebrick_digest::Digest;
use firebrick_registry::{ManifestName, RegistryError, RegistryOptions, Repository, Trouble};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Server};
use firebrick_testkit::tokens::Tokens;

use crate::support::{LIMIT, OCI_MANIFEST, artifact, as_joe, open, options, put_blobs, says, status};

/// Does everything that there is to do, from one repository into another.
fn do_all(host: &str, options: &RegistryOptions) -> Repository {
    let from = open(&format!("{host}/base/images"), options);
    put_blobs(&from, b"abc");
    let into = open(&format!("{host}/test/x"), options);
    let digest = Digest::of(b"abc");
    assert!(into.mount_blob(digest, from.name()).unwrap());
    assert!(into.mount_blob(Digest::of(b"{}"), from.name()).unwrap());
    assert_eq!(into.read_blob(digest, 1..3).unwrap(), b"bc");
    let bytes = artifact("application/x", b"abc", None);
    let tag = ManifestName::Tag("v1".parse().unwrap());
    let pushed = into.put_manifest(&tag, OCI_MANIFEST, &bytes).unwrap();
    assert!(into.manifest(&tag, LIMIT).unwrap().is_some());
    assert_eq!(into.tags().unwrap().len(), 1);
    assert_eq!(into.catalog("test/").unwrap(), [into.name().clone()]);
    assert!(into.delete_manifest(pushed.digest).unwrap());
    into
}

#[test]
fn passwords_of_a_real_registry() {
    if !have_tools() {
        return;
    }
    let setup = Setup {
        htpasswd: true,
        deletes: true,
        ..Setup::default()
    };
    let registry = DockerRegistry::start(&setup);
    do_all(&registry.host, &as_joe(&registry.host));
    let stranger = open(&format!("{}/test/x", registry.host), &options());
    let blob = Digest::of(b"abc");
    says(
        stranger.upload_blob(blob, b"abc"),
        &["does not let us write test/x", "docker login"],
    );
    says(stranger.read_blob(blob, 0..3), &["does not let us read test/x"]);
    says(stranger.blob_exists(blob), &["does not let us read test/x"]);
    says(
        stranger.delete_manifest(blob),
        &["does not let us remove from test/x"],
    );
    let error = stranger.catalog("").unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
}

#[test]
fn passwords_over_tls() {
    if !have_tools() {
        return;
    }
    let setup = Setup {
        htpasswd: true,
        tls: true,
        deletes: true,
        ..Setup::default()
    };
    let registry = DockerRegistry::start(&setup);
    let mut joe = as_joe(&registry.host);
    let untrusting = open(&format!("{}/test/x", registry.host), &joe);
    let error = untrusting.upload_blob(Digest::of(b"abc"), b"abc").unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Untrusted));
    joe.ca_files = vec![registry.folder.path().join("ca.pem")];
    do_all(&registry.host, &joe);
}

/// The registry itself judges the tokens, and each is good for what it was asked for.
#[test]
fn tokens_of_a_real_registry() {
    if !have_tools() {
        return;
    }
    let tokens = Tokens::start();
    let setup = Setup {
        auth: Some(tokens.config()),
        deletes: true,
        ..Setup::default()
    };
    let registry = DockerRegistry::start(&setup);
    do_all(&registry.host, &as_joe(&registry.host));
    let asked: Vec<String> = tokens
        .server
        .requests()
        .iter()
        .map(|request| {
            let (_, query) = request.target.split_once('?').unwrap();
            let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
            // A mount's two come in any order.
            let mut scopes: Vec<&str> = scopes.collect();
            scopes.sort_unstable();
            scopes
                .join(" ")
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ",")
        })
        .collect();
    assert_eq!(
        asked,
        [
            "repository:base/images:pull,push",
            "repository:base/images:pull repository:test/x:pull,push",
            "repository:test/x:pull",
            "repository:test/x:pull,push",
            "registry:catalog:%2A",
            "repository:test/x:delete",
        ]
    );
    // Anybody may pull from public/…, and nothing else.
    let public = open(&format!("{}/public/x", registry.host), &as_joe(&registry.host));
    put_blobs(&public, b"abc");
    let stranger = open(&format!("{}/public/x", registry.host), &options());
    assert_eq!(stranger.read_blob(Digest::of(b"abc"), 0..3).unwrap(), b"abc");
    says(
        stranger.upload_blob(Digest::of(b"abd"), b"abd"),
        &["does not let us write public/x", "docker login"],
    );
    assert!(
        !stranger
            .mount_blob(Digest::of(b"abc"), &"lab/x".parse().unwrap())
            .unwrap()
    );
}

/// A store that the registry sends us to may not ask for our password.
#[test]
fn only_the_registry_is_told_who_we_are() {
    let tokens = Server::start(|_| Answer::new(200, r#"{"token":"t"}"#));
    let realm = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    let store = Server::start(move |_| status(401).with("WWW-Authenticate", realm.clone()));
    let place = store.address;
    let server = Server::start(move |_| status(307).with("Location", format!("http://{place}/blob")));
    let host = server.address.to_string();
    let repository = open(&format!("{host}/test/x"), &as_joe(&host));
    says(
        repository.read_blob(Digest::of(b"abc"), 0..3),
        &["does not let us read test/x"],
    );
    assert_eq!(store.requests().len(), 1);
    assert!(tokens.requests().is_empty(), "{:?}", tokens.requests());
}

/// A redirected push goes on with its body, and without our password where it leads to another host.
#[test]
fn redirected_pushes() {
    let store = Server::start(|_| status(201));
    let place = store.address;
    let server = Server::start(move |request| match request.header("authorization") {
        None => status(401).with("WWW-Authenticate", "Basic realm=x"),
        Some(_) if request.target.ends_with("/v1") => {
            status(307).with("Location", format!("http://{place}/m"))
        }
        // That would make a GET of it.
        Some(_) => status(302).with("Location", format!("http://{place}/m")),
    });
    let host = server.address.to_string();
    let repository = open(&format!("{host}/test/x"), &as_joe(&host));
    let put =
        |tag: &str| repository.put_manifest(&ManifestName::Tag(tag.parse().unwrap()), OCI_MANIFEST, b"{}");
    put("v1").unwrap();
    let asked = store.requests();
    assert_eq!(
        (asked[0].method.as_str(), asked[0].body.as_slice()),
        ("PUT", &b"{}"[..])
    );
    assert_eq!(asked[0].header("authorization"), None);
    says(put("v2"), &["answers 302"]);
    assert_eq!(store.requests().len(), 1);
}
