//! Connections that break, servers that are busy, redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_source::{Cache, Event};
use firebrick_testkit::docker_registry::{Setup, have_tools};
use firebrick_testkit::http::{Answer, Server};

use crate::support::registry::{layers, registry_with};
use crate::support::{
    OCI_LAYER, PLATFORM, chain, config_json, descriptor, gzip, manifest_json, noise, open, options, read,
    recorded, refusal, tar,
};

#[test]
fn a_broken_transfer_goes_on_by_range() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
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
    let registry = registry_with(&Setup::default(), &layers());
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
    let registry = registry_with(&Setup::default(), &layers());
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
    let registry = registry_with(&Setup::default(), &layers());
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
fn four_layers_download_at_once_and_tell_how_far_they_are() {
    if !have_tools() {
        return;
    }
    let layers: Vec<Vec<u8>> = (0..6).map(|n| tar(&[("f", &noise(300 << 10, n))])).collect();
    let registry = registry_with(&Setup::default(), &layers);
    let (now, most, all) = (
        AtomicUsize::new(0),
        Arc::new(AtomicUsize::new(0)),
        AtomicUsize::new(0),
    );
    let seen = Arc::clone(&most);
    let front = Server::before(&registry.host, move |request, answer| {
        if request.is_blob() && answer.body.len() > 100_000 {
            all.fetch_add(1, Ordering::SeqCst);
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Nobody gets an answer before four have asked; a fifth has the time to.
            let start = Instant::now();
            while all.load(Ordering::SeqCst) < 4 && start.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(200));
            now.fetch_sub(1, Ordering::SeqCst);
        }
        answer
    });
    let (options, events) = recorded(options());
    let image = open(&format!("{}/test/image:v1", front.address), &options).unwrap();
    image.prefetch();
    for (layer, expected) in image.layers.iter().zip(&layers) {
        assert_eq!(read(layer).unwrap(), gzip(expected));
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let events = events.lock().unwrap();
    for layer in &image.layers {
        let far: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                Event::Downloaded {
                    layer: of,
                    done_bytes,
                    size_bytes,
                } if *of == layer.index => {
                    assert_eq!(Some(*size_bytes), layer.size);
                    Some(*done_bytes)
                }
                _ => None,
            })
            .collect();
        assert!(far.is_sorted() && far.last().copied() == layer.size, "{far:?}");
        let size = layer.size.unwrap();
        assert!(events.contains(&Event::DownloadFinished {
            layer: layer.index,
            fetched_bytes: size
        }));
    }
}

/// The manifest promises more bytes than there are, to a client that asks again for the rest.
#[test]
fn a_layer_that_is_shorter_than_promised_is_named() {
    let layer = tar(&[("f", &noise(300 << 10, 1))]);
    let config = config_json(PLATFORM, &[Digest::of(&layer)]);
    let promised = descriptor(OCI_LAYER, &layer, "").replace(&layer.len().to_string(), "9999999");
    let manifest = manifest_json(&config, &[promised]);
    let (config_digest, len) = (Digest::of(config.as_bytes()).to_string(), layer.len());
    // It says so at once, or breaks off first and has no more to give when asked for the rest.
    for breaks in [false, true] {
        let (config, manifest, layer, config_digest) = (
            config.clone(),
            manifest.clone(),
            layer.clone(),
            config_digest.clone(),
        );
        let server = Server::start(move |request| match request.target.rsplit('/').next() {
            Some("v1") => Answer::new(200, manifest.clone()),
            Some(name) if name == config_digest => Answer::new(200, config.clone()),
            _ if request.header("range").is_some() => Answer::new(416, ""),
            _ if breaks => {
                let mut answer = Answer::new(200, [&layer[..], &[0; 1000]].concat());
                answer.cut = Some(layer.len());
                answer
            }
            _ => Answer::new(200, layer.clone()),
        });
        let image = open(&format!("{}/x:v1", server.address), &options()).unwrap();
        let mut reader = image.layers[0].open().unwrap();
        let text = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        let expected = format!("length is {len} bytes, expected 9999999");
        assert!(
            text.starts_with("layer 0 (sha256:") && text.ends_with(&expected),
            "{text}"
        );
    }
}

#[test]
fn a_registry_that_lies_about_a_layer_is_named() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
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
