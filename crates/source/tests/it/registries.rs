//! Real registries on loopback: plain, htpasswd, TLS, tokens, helpers, proxies.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use firebrick_source::{Credentials, Options, Proxy, Trouble};
use firebrick_testkit::docker_registry::{DockerRegistry, PASSWORD, Setup, USER, have_tools};
use firebrick_testkit::http::{Answer, Server, Tunnels, forward};
use firebrick_testkit::tokens::Tokens;

use crate::support::registry::{layers, registry_with};
use crate::support::{LayoutDir, PLATFORM, for_platform, gzip, open, options, platform, read, refusal, tar};

fn joe() -> Credentials {
    Credentials::Basic {
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn check(reference: &str, options: &Options) {
    let image = open(reference, options).unwrap();
    for (layer, expected) in image.layers.iter().zip(layers()) {
        assert_eq!(read(layer).unwrap(), gzip(&expected));
    }
    assert_eq!(image.layers.len(), 2);
}

#[test]
fn plain_with_and_without_cache_by_tag_and_digest() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
    let name = format!("{}/test/image", registry.host);
    check(&format!("{name}:v1"), &options());
    let digest = open(&format!("{name}:v1"), &options())
        .unwrap()
        .manifest_digest
        .unwrap();
    check(&format!("{name}@{digest}"), &options());
    let text = refusal(&format!("{name}:v2"), &options());
    assert!(
        text.contains("does not exist") && text.contains("MANIFEST_UNKNOWN"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let mut cached = options();
    cached.cache = Some(firebrick_source::Cache::open(folder.path()).unwrap());
    check(&format!("{name}@{digest}"), &cached);
    drop(registry);
    // By digest, all of it is in the cache: the registry is not needed.
    check(&format!("{name}@{digest}"), &cached);
}

#[test]
fn platforms_in_a_registry() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let layout = LayoutDir::new();
    let images: Vec<String> = ["linux/amd64", "linux/arm64"]
        .iter()
        .map(|text| layout.image(text, &[tar(&[("p", text.as_bytes())])], &for_platform(text)))
        .collect();
    layout.finish(&[layout.index(&images, "")]);
    registry.push(&layout.reference(), "multi:latest");
    let name = format!("{}/multi", registry.host);
    for wanted in [PLATFORM, "linux/arm64"] {
        let mut options = options();
        options.platform = Some(platform(wanted));
        let image = open(&name, &options).unwrap();
        assert_eq!(
            read(&image.layers[0]).unwrap(),
            gzip(&tar(&[("p", wanted.as_bytes())]))
        );
    }
    let mut other = options();
    other.platform = Some(platform("linux/s390x"));
    let text = refusal(&name, &other);
    assert!(text.contains("linux/amd64, linux/arm64"), "{text}");
}

#[test]
fn htpasswd_by_option_file_and_helper() {
    if !have_tools() {
        return;
    }
    let setup = Setup {
        htpasswd: true,
        ..Setup::default()
    };
    let registry = registry_with(&setup, &layers());
    let name = format!("{}/test/image:v1", registry.host);
    let text = refusal(&name, &options());
    assert!(
        text.contains("does not let us read test/image") && text.contains("docker login"),
        "{text}"
    );
    let mut by_option = options();
    by_option
        .registry
        .credentials
        .insert(registry.host.clone(), joe());
    check(&name, &by_option);
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {}\" ] || {{ echo credentials not found; exit 1; }}\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.host
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.path().join("config.json");
    // joe:s3cret:x
    for text in [
        format!(
            r#"{{"auths":{{"{}":{{"auth":"am9lOnMzY3JldDp4"}}}}}}"#,
            registry.host
        ),
        format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host),
        r#"{"credsStore":"test"}"#.to_owned(),
    ] {
        fs::write(&config, &text).unwrap();
        let mut options = options();
        options.registry.docker_config = Some(config.clone());
        options.registry.credential_helper_dirs = vec![folder.path().to_owned()];
        check(&name, &options);
    }
    let mut wrong = by_option;
    let bad = Credentials::Basic {
        username: USER.to_owned(),
        password: "no".to_owned(),
    };
    wrong.registry.credentials.insert(registry.host.clone(), bad);
    let text = refusal(&name, &wrong);
    assert!(
        text.contains("check the account's rights") && !text.contains("\"no\""),
        "{text}"
    );
}

#[test]
fn tls_with_a_private_authority_and_a_proxy() {
    if !have_tools() {
        return;
    }
    let setup = Setup {
        tls: true,
        ..Setup::default()
    };
    let registry = registry_with(&setup, &layers());
    let name = format!("{}/test/image:v1", registry.host);
    assert_eq!(trouble(&name, &options()), Some(Trouble::Untrusted));
    let mut trusting = options();
    trusting.registry.ca_files = vec![registry.folder.path().join("ca.pem")];
    check(&name, &trusting);
    let tunnels = Tunnels::start();
    trusting.registry.proxy = Some(Proxy {
        url: format!("http://{}", tunnels.address),
        no_proxy: Vec::new(),
    });
    check(&name, &trusting);
    assert!(tunnels.targets.lock().unwrap().contains(&registry.host));
}

fn trouble(reference: &str, options: &Options) -> Option<Trouble> {
    open(reference, options).unwrap_err().trouble()
}

#[test]
fn what_is_in_the_way_is_told() {
    let mut quick = options();
    quick.registry.retry.attempts = 1;
    quick.registry.read_timeout = Duration::from_millis(300);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    assert_eq!(trouble(&format!("{address}/x"), &quick), Some(Trouble::Refused));
    // RFC 6761: this name never exists.
    assert_eq!(trouble("nowhere.invalid/x", &quick), Some(Trouble::UnknownHost));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/x", silent.local_addr().unwrap());
    assert_eq!(trouble(&name, &quick), Some(Trouble::Silent));
    // A name that is not loopback's is spoken to by TLS; the server is reached through a proxy.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tunnels = Tunnels::start_to(plain.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    quick.registry.proxy = Some(Proxy {
        url: format!("http://{}", tunnels.address),
        no_proxy: Vec::new(),
    });
    assert_eq!(trouble("plain.example/x", &quick), Some(Trouble::NotTls));
    let closed = Server::start(|_| Answer::new(403, ""));
    quick.registry.proxy = Some(Proxy {
        url: format!("http://{}", closed.address),
        no_proxy: Vec::new(),
    });
    assert_eq!(trouble("plain.example/x", &quick), Some(Trouble::Proxy));
}

/// Names decide, not addresses: 127.0.0.2 is this machine too, but nobody said so.
#[test]
fn plain_http_only_with_localhost_or_when_asked() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
    let upstream = registry.host.clone();
    let elsewhere = Server::start_at("127.0.0.2:0", move |request| forward(&upstream, request));
    let name = format!("{}/test/image:v1", elsewhere.address);
    let mut options = options();
    options.registry.retry.attempts = 1;
    open(&name, &options).unwrap_err();
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
    options.registry.plain_http = vec![elsewhere.address.to_string()];
    check(&name, &options);
}

#[test]
fn bare_names_are_docker_hubs() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tunnels = Tunnels::start_to(plain.local_addr().unwrap());
    drop(plain);
    let mut options = options();
    options.registry.retry.attempts = 1;
    options.registry.proxy = Some(Proxy {
        url: format!("http://{}", tunnels.address),
        no_proxy: Vec::new(),
    });
    for name in ["alpine", "docker://alpine:3", "ghcr.io/x/y"] {
        open(name, &options).unwrap_err();
    }
    let hub = "registry-1.docker.io:443";
    assert_eq!(*tunnels.targets.lock().unwrap(), [hub, hub, "ghcr.io:443"]);
}

#[test]
fn helpers_that_are_missing_or_fail_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let guarded = Server::start(|_| Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""));
    let helper = folder.path().join("docker-credential-broken");
    fs::write(&helper, "#!/bin/sh\necho out of luck\nexit 3\n").unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = options();
    options.registry.docker_config = Some(config.clone());
    options.registry.credential_helper_dirs = vec![folder.path().to_owned()];
    for (name, why) in [
        ("nowhere", "there is no such program in the PATH"),
        ("broken", "exit status: 3: out of luck"),
    ] {
        fs::write(&config, format!(r#"{{"credsStore":"{name}"}}"#)).unwrap();
        let text = refusal(&format!("{}/x", guarded.address), &options);
        assert!(
            text.contains(&format!("docker-credential-{name}")) && text.contains(why),
            "{text}"
        );
    }
}

/// Plays a token server, and a registry that wants its tokens, in front of the real one.
#[test]
fn bearer_tokens_are_fetched_kept_and_renewed() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
    let issued = std::sync::atomic::AtomicUsize::new(0);
    let tokens = Server::start(move |request| {
        let asked = request
            .target
            .starts_with("/token?service=test&scope=repository%3Atest%2Fimage%3Apull");
        let basic = request.header("authorization") == Some("Basic am9lOnMzY3JldDp4");
        match asked && basic {
            true => {
                let n = issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Answer::new(200, format!(r#"{{"token":"t{n}","expires_in":300}}"#))
            }
            false => Answer::new(401, ""),
        }
    });
    let realm = format!("http://{}/token", tokens.address);
    let front = Server::before(&registry.host, move |request, answer| {
        // The first token is good for the manifest only.
        let good = match request.is_blob() {
            true => request.header("authorization") == Some("Bearer t1"),
            false => request.header("authorization").is_some(),
        };
        match good {
            true => answer,
            false => Answer::new(401, "").with(
                "WWW-Authenticate",
                format!(r#"Bearer realm="{realm}",service="test",scope="repository:test/image:pull""#),
            ),
        }
    });
    let name = format!("{}/test/image:v1", front.address);
    assert!(refusal(&name, &options()).contains("does not let us read"));
    let mut options = options();
    options
        .registry
        .credentials
        .insert(front.address.to_string(), joe());
    check(&name, &options);
    let asked = tokens
        .requests()
        .iter()
        .filter(|request| request.header("authorization").is_some())
        .count();
    assert_eq!(asked, 2, "one token, and one more when it was refused");
}

/// The registry itself judges the tokens; skopeo has pushed through the same token server.
#[test]
fn tokens_that_a_real_registry_wants() {
    if !have_tools() {
        return;
    }
    let tokens = Tokens::start();
    let setup = Setup {
        auth: Some(tokens.config()),
        ..Setup::default()
    };
    let registry = registry_with(&setup, &layers());
    let by_skopeo = tokens.server.requests().len();
    assert!(by_skopeo > 0);
    let name = format!("{}/test/image:v1", registry.host);
    let text = refusal(&name, &options());
    assert!(
        text.contains("does not let us read test/image") && text.contains("docker login"),
        "{text}"
    );
    let mut known = options();
    known.registry.credentials.insert(registry.host.clone(), joe());
    check(&name, &known);
    let asked = tokens.server.requests().split_off(by_skopeo);
    let by_joe = asked
        .iter()
        .filter(|request| request.header("authorization").is_some());
    assert_eq!(
        by_joe.count(),
        1,
        "one token for the image and all its blobs: {asked:?}"
    );
    assert!(
        asked
            .iter()
            .all(|request| request.target.contains("scope=repository%3Atest%2Fimage%3Apull")),
        "{asked:?}"
    );
    let wrong = Credentials::Basic {
        username: USER.to_owned(),
        password: "wrong".to_owned(),
    };
    known.registry.credentials.insert(registry.host.clone(), wrong);
    let text = refusal(&name, &known);
    assert!(
        text.contains("who is that?") && text.contains("check the account's rights"),
        "{text}"
    );
    // Docker Hub's way: a token for everybody, but still a token.
    let layout = LayoutDir::new();
    layout.finish(&[layout.image(PLATFORM, &layers(), "")]);
    registry.push(&layout.reference(), "public/image:v1");
    check(&format!("{}/public/image:v1", registry.host), &options());
}
