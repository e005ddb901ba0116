//! Whole uploads, downloads, lazy reads and collections through real servers, while answers go wrong on the way.
//!
//! Every request of a faultless run is counted first. A fault that passes must be survived, wherever it strikes; damage must be
//! mended where it passes, and be found out where it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use firebrick_digest::Digest;
use firebrick_store::{GcOptions, StoreError};
use firebrick_testkit::fault::{Answer, Request, forward};

use crate::common::Host;
use crate::servers::Server;
use crate::spoiled::{Fault, PASSING, Way, World, damaged};

/// Each request of an upload or a collection meets one kind of fault: all by each would take minutes.
const STEP: usize = PASSING.len();

fn in_a_bucket(test: fn(World)) {
    if let Some(server) = Server::bucket() {
        test(World::new(server));
    }
}

fn in_a_registry(test: fn(World)) {
    if let Some(server) = Server::registry() {
        test(World::new(server));
    }
}

/// Tries every passing fault, all kinds at once, at every `step`-th of `count` requests, each kind from another one on. `run` is also
/// given a name for a place of its own.
fn each_passing(count: usize, step: usize, run: impl Fn(Fault, usize, &str) + Sync) {
    std::thread::scope(|scope| {
        for (kind, fault) in PASSING.into_iter().enumerate() {
            let run = &run;
            scope.spawn(move || {
                for at in (kind % step..count).step_by(step) {
                    run(fault, at, &format!("{}-{at}", fault.name()));
                }
            });
        }
    });
}

fn uploads(world: World) {
    let count = world.uploaded("none", Way::clear());
    assert!(count > 10, "{count} requests");
    each_passing(count, STEP, |fault, at, place| {
        assert!(world.uploaded(place, Way::at(at, fault)) > at, "{place}");
    });
    // The last step, which must not be done twice, meets them all.
    for fault in PASSING.into_iter().chain([Fault::Busy(1)]) {
        let count = Arc::new(AtomicUsize::new(0));
        let copy = Arc::clone(&count);
        let way = Way::once(fault, move |_, request| {
            let names = ["/index.json", "/manifests/latest"];
            let is_name = request.method == "PUT" && names.iter().any(|name| request.path().ends_with(name));
            copy.fetch_add(usize::from(is_name), Ordering::SeqCst);
            is_name
        });
        let place = format!("last-{}", fault.name());
        world.uploaded(&place, way);
        assert!(count.load(Ordering::SeqCst) >= 2, "{place}");
    }
}

#[test]
fn an_upload_to_a_bucket_survives_a_fault() {
    in_a_bucket(uploads);
}

#[test]
fn an_upload_to_a_registry_survives_a_fault() {
    in_a_registry(uploads);
}

fn reads(world: World) {
    world.direct("a").upload(&world.new, "x").unwrap();
    let (downloads, reads) = (
        world.downloaded("a", Way::clear()),
        world.read_all("a", Way::clear()),
    );
    assert!(downloads.min(reads) >= 6, "{downloads}, {reads} requests");
    each_passing(downloads.min(reads), 2, |fault, at, what| {
        // Each of these takes as long as the client waits.
        if fault == Fault::Slow && at % 6 != 5 {
            return;
        }
        assert!(world.downloaded("a", Way::at(at, fault)) > at, "{what}");
        assert!(world.read_all("a", Way::at(at, fault)) > at, "{what}");
    });
}

#[test]
fn reads_from_a_bucket_survive_a_fault() {
    in_a_bucket(reads);
}

#[test]
fn reads_from_a_registry_survive_a_fault() {
    in_a_registry(reads);
}

/// One answer is damaged, somewhere; and whether it was one that says what there is, which nothing can verify.
fn damage(at: usize, seed: usize) -> (Way, Arc<AtomicBool>) {
    let is_list = Arc::new(AtomicBool::new(false));
    let copy = Arc::clone(&is_list);
    let way = Way::new(move |number, request, ask| {
        if number != at {
            return ask();
        }
        let lists = ["/index.json", "/tags/list", "/_catalog"];
        let is_named = lists.iter().any(|list| request.path().ends_with(list));
        copy.store(is_named || request.query("list-type").is_some(), Ordering::SeqCst);
        damaged(ask(), seed)
    });
    (way, is_list)
}

fn damages(world: World) {
    world.direct("a").upload(&world.new, "x").unwrap();
    let assert_mended = |result: Result<(), String>, is_list: &AtomicBool| {
        assert!(is_list.load(Ordering::SeqCst) || result.is_ok(), "{result:?}");
    };
    for at in 0..world.downloaded("a", Way::clear()) {
        for seed in 0..3 {
            let (way, is_list) = damage(at, seed);
            let result = world.download("a", way).0;
            assert_mended(
                result.map(drop).map_err(|error| format!("{at} {error:?}")),
                &is_list,
            );
            let (way, is_list) = damage(at, seed);
            let result = world.read("a", way).0;
            assert_mended(result.map_err(|error| format!("{at} {error:?}")), &is_list);
        }
    }
    for at in (0..world.uploaded("none", Way::clear())).step_by(3) {
        let (way, is_list) = damage(at, at);
        let result = world.upload(&format!("damaged-{at}"), way).0;
        assert_mended(
            result.map(drop).map_err(|error| format!("{at} {error:?}")),
            &is_list,
        );
    }
}

#[test]
fn damage_on_the_way_from_a_bucket_is_mended() {
    in_a_bucket(damages);
}

#[test]
fn damage_on_the_way_from_a_registry_is_mended() {
    in_a_registry(damages);
}

fn always_damaged(world: World) {
    world.direct("a").upload(&world.new, "x").unwrap();
    let contents = world.contents("a");
    assert!(contents.len() >= 5, "{contents:?}");
    for path in contents {
        let way = || {
            let path = path.clone();
            Way::new(move |_, request, ask| match request.path() == path {
                true => damaged(ask(), 0),
                false => ask(),
            })
        };
        // Whatever it is, its digest is told; of a tag that of its manifest.
        let digest = match path.rsplit(['/', ':']).next() {
            Some(digest) if digest != "latest" => digest,
            _ => "sha256:",
        };
        let error = world.download("a", way()).0.unwrap_err().to_string();
        assert!(error.contains(digest), "{path}: {error}");
        let error = world.read("a", way()).0.unwrap_err().to_string();
        assert!(error.contains(digest), "{path}: {error}");
    }
}

#[test]
fn damage_in_a_bucket_is_refused() {
    in_a_bucket(always_damaged);
}

#[test]
fn damage_in_a_registry_is_refused() {
    in_a_registry(always_damaged);
}

/// Another letter in one word of what is read of the names hides them all, at one time of several.
fn hiding(at: usize) -> Way {
    let count = AtomicUsize::new(0);
    Way::new(move |_, request, ask| {
        let mut answer = ask();
        let is_index = request.method == "GET" && request.path().ends_with("/index.json");
        if is_index && count.fetch_add(1, Ordering::SeqCst) == at {
            let text = String::from_utf8(answer.body).unwrap();
            answer.body = text.replace("\"manifests\"", "\"manigests\"").into_bytes();
        }
        answer
    })
}

#[test]
fn names_that_damage_hides_are_not_lost() {
    let Some(server) = Server::bucket() else { return };
    let world = World::new(server);
    for at in 0..5 {
        let place = format!("hidden-{at}");
        world.uploaded(&place, hiding(at));
        // Without a grace there is no second look before anything is removed.
        let options = GcOptions {
            dry_run: false,
            grace: Duration::ZERO,
            keep: None,
            now: SystemTime::now(),
        };
        let (collected, _) = world.spoiled(&place, hiding(at), |host| host.store.collect(&options));
        collected.unwrap();
        world.assert_whole(&place, &world.new, 2);
    }
}

/// An answer that calls its content something else.
fn lie(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| name != "docker-content-digest");
    answer.with("Docker-Content-Digest", Digest::of(b"something else").to_string())
}

#[test]
fn a_registry_that_lies_about_digests_is_not_believed() {
    let Some(server) = Server::registry() else { return };
    let world = World::new(server);
    let told = Digest::of(b"something else").to_string();
    // Of what is sent, and of what is read.
    for (place, method, part) in [
        ("blob", "PUT", "/blobs/"),
        ("manifest", "PUT", "/manifests/sha256"),
        ("tag", "PUT", "/manifests/latest"),
        ("read", "GET", "/manifests/latest"),
    ] {
        let way = Way::new(move |_, request, ask| {
            let is_it = request.method == method && request.path().contains(part);
            if is_it { lie(ask()) } else { ask() }
        });
        let error = world.upload(place, way).0.unwrap_err();
        assert!(matches!(error, StoreError::Registry(_)), "{place}: {error:?}");
        assert!(error.to_string().contains(&told), "{place}: {error}");
    }
    // Another manifest that is valid, where its digest or its name is asked for.
    let name = "x".parse().unwrap();
    let history = world.direct("blob").store.backend().history(&name).unwrap();
    let [new, old] = [0, 1].map(|at| history[at].digest.to_string());
    for asked in [
        format!("/v2/blob/x/manifests/{new}"),
        "/v2/blob/x/manifests/latest".to_owned(),
    ] {
        let (host, other) = (world.server.address(), format!("/v2/blob/x/manifests/{old}"));
        let is_it = move |request: &Request| request.method == "GET" && request.path() == asked;
        let way = Way::new(move |_, request, ask| {
            let mut answer = ask();
            if is_it(request) {
                let instead = Request {
                    target: other.clone(),
                    ..request.clone()
                };
                answer.body = forward(&host, &instead).unwrap().body;
            }
            answer
        });
        let error = world.download("blob", way).0.unwrap_err().to_string();
        assert!(error.contains(&new) && error.contains(&old), "{error}");
    }
}

/// Collects two times, the second time after the grace, and tells what was removed.
fn collect(host: &Host) -> Result<u64, StoreError> {
    let mut removed = 0;
    for hours in [0, 2] {
        let options = GcOptions {
            dry_run: false,
            grace: Duration::from_secs(3600),
            keep: Some(1),
            now: SystemTime::now() + Duration::from_secs(hours * 3600),
        };
        removed += host.store.collect(&options)?.deleted.count;
    }
    Ok(removed)
}

#[test]
fn a_collection_of_a_bucket_survives_a_fault() {
    let Some(server) = Server::bucket() else { return };
    let world = World::new(server);
    let collected = |place: &str, way| {
        let host = world.direct(place);
        host.upload(&world.old, "x").unwrap();
        host.upload(&world.new, "x").unwrap();
        world.spoiled(place, way, |host| collect(&host))
    };
    let (all, count) = collected("none", Way::clear());
    let all = all.unwrap();
    assert!(all >= 4 && count > 30, "{all} removed, {count} requests");
    each_passing(count, STEP, |fault, at, place| {
        let (removed, requests) = collected(place, Way::at(at, fault));
        assert_eq!(
            removed.unwrap_or_else(|error| panic!("{place}: {error:?}")),
            all,
            "{place}"
        );
        assert!(requests > at, "{place}");
        world.assert_whole(place, &world.new, 1);
    });
    for at in (0..count).step_by(STEP) {
        let (place, (way, is_list)) = (format!("damaged-{at}"), damage(at, at));
        let (removed, _) = collected(&place, way);
        assert!(
            is_list.load(Ordering::SeqCst) || removed.is_ok(),
            "{place}: {removed:?}"
        );
        // What was hidden from one collection, another one finds.
        collect(&world.direct(&place)).unwrap();
        let checked = world.assert_whole(&place, &world.new, 1);
        assert_eq!(checked.unreached.count, 0, "{place}");
    }
}
