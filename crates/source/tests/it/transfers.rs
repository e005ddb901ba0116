//! Connections that break, servers that are busy, redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use firebrick_source::{Cache, Event};

use crate::support::http::{Answer, Server};
use crate::support::registry::{Registry, Setup, have_tools, layers};
use crate::support::{chain, gzip, open, options, read, recorded, refusal};

#[test]
fn a_broken_transfer_goes_on_by_range() {
    if !have_tools() {
        return;
    }
    let registry = Registry::with_layers(&Setup::default(), &layers());
    let front = Server::before(&registry.host, |request, mut answer| {
        if request.is_blob() && answer.body.len() > 2 << 20 {
            answer.cut = Some(1 << 20);
        }
        answer
    });
    let image = open(&format!("{}/test/image:v1", front.address), &options()).unwrap();
    assert_eq!(read(&image.layers[0]).unwrap(), gzip(&layers()[0]));
    let big = image.layers[0].digest.unwrap().to_string();
    let ranges: Vec<Option<String>> = front
        .blob_requests()
        .iter()
        .filter(|request| request.target.ends_with(&big))
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=1048576-".to_owned()),
            Some("bytes=2097152-".to_owned())
        ][..ranges.len()]
    );
    assert!(ranges.len() >= 2, "{ranges:?}");
}

#[test]
fn busy_servers_are_asked_again_after_their_pause() {
    if !have_tools() {
        return;
    }
    let registry = Registry::with_layers(&Setup::default(), &layers());
    let count = AtomicUsize::new(0);
    let front = Server::before(&registry.host, move |request, answer| {
        if request.target == "/v2/" {
            return answer;
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => Answer::new(503, "").with("Retry-After", "1"),
            1 => Answer::new(500, ""),
            _ => answer,
        }
    });
    let (options, events) = recorded(options());
    open(&format!("{}/test/image:v1", front.address), &options).unwrap();
    let delays: Vec<Duration> = events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Retry { delay, .. } => Some(*delay),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [Duration::from_secs(1), Duration::from_millis(40)]);
}

#[test]
fn endless_trouble_ends() {
    let server = Server::start(|_| Answer::new(500, r#"{"errors":[{"code":"X","message":"on fire"}]}"#));
    let text = refusal(&format!("{}/x", server.address), &options());
    assert!(text.contains("answers 500: on fire (X)"), "{text}");
    let server = Server::start(|_| Answer::new(429, "").with("Retry-After", "3600"));
    let text = refusal(&format!("{}/x", server.address), &options());
    assert!(text.contains("asks to wait 3600 s"), "{text}");
}

#[test]
fn redirects_do_not_carry_authorization() {
    if !have_tools() {
        return;
    }
    let registry = Registry::with_layers(&Setup::default(), &layers());
    let store = Server::before(&registry.host, |_, answer| answer);
    let target = store.address;
    let front = Server::before(&registry.host, move |request, answer| {
        if request.header("authorization").is_none() {
            return Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x");
        }
        match request.is_blob() {
            true => Answer::new(307, "").with("Location", format!("http://{target}{}", request.target)),
            false => answer,
        }
    });
    let mut options = options();
    let joe = firebrick_source::Credentials::Basic {
        username: "joe".into(),
        password: "x".into(),
    };
    options
        .registry
        .credentials
        .insert(front.address.to_string(), joe);
    let image = open(&format!("{}/test/image:v1", front.address), &options).unwrap();
    assert_eq!(read(&image.layers[1]).unwrap(), gzip(&layers()[1]));
    assert!(!store.requests().is_empty());
    assert!(
        store
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn readers_follow_the_download() {
    if !have_tools() {
        return;
    }
    let registry = Registry::with_layers(&Setup::default(), &layers());
    let release = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&release);
    let front = Server::before(&registry.host, move |request, mut answer| {
        if request.is_blob() && answer.body.len() > 2 << 20 {
            answer.hold = Some((1 << 20, Arc::clone(&hold)));
        }
        answer
    });
    let image = open(&format!("{}/test/image:v1", front.address), &options()).unwrap();
    let mut reader = image.layers[0].open().unwrap();
    let mut first = vec![0; 1 << 20];
    reader.read_exact(&mut first).unwrap();
    release.store(true, Ordering::Relaxed);
    reader.read_to_end(&mut first).unwrap();
    assert_eq!(first, gzip(&layers()[0]));
}

#[test]
fn a_registry_that_lies_about_a_layer_is_named() {
    if !have_tools() {
        return;
    }
    let registry = Registry::with_layers(&Setup::default(), &layers());
    let front = Server::before(&registry.host, |request, mut answer| {
        if request.is_blob() && answer.body.len() > 10_000 {
            answer.body[5000] ^= 1;
        }
        answer
    });
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.cache = Some(Cache::open(folder.path()).unwrap());
    let image = open(&format!("{}/test/image:v1", front.address), &options).unwrap();
    let text = match image.layers[0].open() {
        Ok(mut reader) => reader.read_to_end(&mut Vec::new()).unwrap_err().to_string(),
        Err(error) => chain(&error),
    };
    let digest = image.layers[0].digest.unwrap().to_string();
    assert!(
        text.contains("layer 0") && text.contains(&digest) && text.contains("digest is"),
        "{text}"
    );
    assert!(
        options
            .cache
            .unwrap()
            .list()
            .unwrap()
            .iter()
            .all(|blob| blob.digest.to_string() != digest)
    );
}
