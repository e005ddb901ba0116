//! A pool whose members are restored from a snapshot, repaired, and used once.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use firebrick_vmm::client::Client;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::kernel::{Kernel, SetupRequest, Source, setup};
use firebrick_vmm::pool::{ImageId, Keeper, PoolFiles, Taking, Terms, Wish, status, stop, take};
use firebrick_vmm::{BootSpec, Up as _};
use serde_json::Value;

use crate::fake::{Fake, LIMIT, fake};

fn kernel(fake: &Fake) -> Kernel {
    let request = SetupRequest {
        state: fake.at("state"),
        source: Source::File(fake.at("vmlinux")),
        force: false,
    };
    setup(&request, &|_| {}).expect("a kernel")
}

fn wish(image: &Path) -> Wish {
    Wish {
        image: ImageId::of(image).expect("an image"),
        memory_mib: None,
        vcpus: None,
        overlay_mib: None,
        network: false,
        others: Vec::new(),
        wait_ms: 60_000,
    }
}

/// Keeps a pool of two while `test` runs, which must stop it. Gives the keeper's words.
fn with_pool(fake: &Fake, test: impl FnOnce(&PoolFiles)) -> Vec<String> {
    let kernel = kernel(fake);
    let spec = BootSpec::new(fake.at("image"), &kernel, b"guest");
    let terms = Terms {
        image: ImageId::of(&spec.image).expect("an image"),
        memory_mib: spec.memory_mib,
        vcpus: spec.vcpus,
        overlay_mib: spec.overlay_mib,
        network: false,
        others: Vec::new(),
    };
    let files = PoolFiles::of(fake.at("pools"), "x");
    let held = files.hold().expect("a lock").expect("nobody else");
    let listener = held.listen().expect("a socket");
    let words = std::sync::Mutex::new(Vec::new());
    let log = |line: &str| words.lock().expect("a lock").push(line.to_owned());
    let vmm = fake.vmm();
    let keeper = Keeper::new(&vmm, &spec, terms, 2, files.snapshot(), &log).expect("a keeper");
    let (_sender, interrupts) = Interrupts::pair().expect("a pair");
    std::thread::scope(|scope| {
        let kept = scope.spawn(|| keeper.run(&listener, &interrupts));
        test(&files);
        kept.join().expect("no panic").expect("it ends well");
    });
    drop(keeper);
    held.remove();
    assert_eq!(std::fs::read_dir(fake.at("pools")).expect("a folder").count(), 0);
    fake.is_clean();
    words.into_inner().expect("a lock")
}

fn wait_until_warm(files: &PoolFiles) {
    let deadline = Instant::now() + LIMIT;
    while status(files).expect("an answer").expect("a pool").warm < 2 {
        assert!(Instant::now() < deadline, "{:?}", status(files));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn calls<'a>(log: &'a [Value], method: &str) -> Vec<&'a Value> {
    log.iter().filter(|entry| entry["agent"] == method).collect()
}

#[test]
fn members_are_restored_with_a_clock_and_random_numbers_of_their_own() {
    let Some(fake) = fake("") else { return };
    let words = with_pool(&fake, |files| {
        wait_until_warm(files);
        assert!(status(files).unwrap().unwrap().snapshot);
        let Taking::Taken(mut lease) = take(files, wish(&fake.at("image"))).unwrap() else {
            panic!("one is warm");
        };
        let mut client = Client::new(lease.agent().expect("a stream")).unwrap();
        client.ping(LIMIT).unwrap();
        assert_eq!(status(files).unwrap().unwrap().in_use, 1);
        assert!(
            lease.last_words().contains("going on from a snapshot"),
            "its console is told"
        );
        lease.connect(LIMIT).unwrap().ping(LIMIT).unwrap();
        drop((client, lease));
        wait_until_warm(files);
        assert!(stop(files).unwrap());
    });
    assert_eq!(words, [""; 0]);
    let log = fake.log();
    let requests = fake.requests();
    let count = |wanted: &str| requests.iter().filter(|request| *request == wanted).count();
    assert_eq!(count("PUT /snapshot/create 204"), 1);
    let restored = count("PUT /snapshot/load 204");
    assert!(restored >= 3, "{restored}");
    // Every member another seed, and the time of now.
    let mut seeds: Vec<&str> = calls(&log, "reseed")
        .iter()
        .map(|call| call["params"]["data"].as_str().expect("text"))
        .collect();
    assert!(seeds.iter().all(|seed| seed.len() == 88), "{seeds:?}");
    let given = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!((given, seeds.len()), (restored, restored));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    for call in calls(&log, "clock_sync") {
        let set = u128::from(call["params"]["unix_us"].as_u64().expect("a number"));
        assert!(now.abs_diff(set) < 600_000_000, "{set}");
    }
    assert!(
        calls(&log, "clock_sync").len() > restored,
        "once more when it is taken"
    );
}

#[test]
fn members_are_booted_where_restored_ones_cannot_be_set_right() {
    for mode in ["old-agent", "refuse:/snapshot/create"] {
        let Some(fake) = fake(mode) else { return };
        let words = with_pool(&fake, |files| {
            wait_until_warm(files);
            assert!(!status(files).unwrap().unwrap().snapshot);
            assert!(matches!(
                take(files, wish(&fake.at("image"))).unwrap(),
                Taking::Taken(_)
            ));
            stop(files).unwrap();
        });
        assert!(
            words.iter().any(|word| word.starts_with("no snapshots")),
            "{words:?}"
        );
        assert!(
            fake.requests()
                .iter()
                .filter(|request| *request == "PUT /actions 204")
                .count()
                >= 3
        );
    }
}

#[test]
fn a_keeper_that_cannot_start_anything_says_why() {
    let Some(fake) = fake("refuse:/boot-source") else {
        return;
    };
    with_pool(&fake, |files| {
        let deadline = Instant::now() + LIMIT;
        let told = loop {
            let status = status(files).unwrap().unwrap();
            match status.last_error {
                Some(error) => break error,
                None => assert!(Instant::now() < deadline),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(told.contains("Firecracker refuses PUT /boot-source"), "{told}");
        stop(files).unwrap();
    });
}
