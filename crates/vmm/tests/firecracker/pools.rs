//! A pool whose members are restored from a snapshot, repaired, and used once.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use firebrick_vmm::client::Client;
use firebrick_vmm::interrupts::{InterruptSender, Interrupts};
use firebrick_vmm::kernel::{Kernel, SetupRequest, Source, setup};
use firebrick_vmm::pool::{ImageId, Keeper, PoolFiles, Taking, Terms, Wish, status, stop, take};
use firebrick_vmm::{BootSpec, LaunchError, Machine, MachineSpec, Snapshot, Up as _, Vmm, VmmFacts};
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

pub(crate) fn wish(image: &Path) -> Wish {
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

/// A test that fails ends its keeper, too.
struct Ends<'a>(&'a InterruptSender);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.send(15);
    }
}

/// Keeps a pool of two while `test` runs, which must stop it. Gives the keeper's words.
pub(crate) fn with_pool(fake: &Fake, test: impl FnOnce(&PoolFiles)) -> Vec<String> {
    let (words, ended) = with_pool_of(fake, &fake.vmm(), &|_| Ok(()), Vec::new(), test);
    ended.expect("it ends well");
    words
}

/// The same with this VMM and these terms, for as long as that fits. Gives the keeper's end too.
pub(crate) fn with_pool_of(
    fake: &Fake,
    vmm: &dyn Vmm,
    fits: &(dyn Fn(&Path) -> Result<(), String> + Sync),
    others: Vec<(String, String)>,
    test: impl FnOnce(&PoolFiles),
) -> (Vec<String>, std::io::Result<()>) {
    let kernel = kernel(fake);
    let spec = BootSpec::new(fake.at("image"), &kernel, b"guest");
    let terms = Terms {
        image: ImageId::of(&spec.image).expect("an image"),
        memory_mib: spec.memory_mib,
        vcpus: spec.vcpus,
        overlay_mib: spec.overlay_mib,
        network: false,
        others,
    };
    let files = PoolFiles::of(fake.at("pools"), "x");
    let held = files.hold().expect("a lock").expect("nobody else");
    let listener = held.listen().expect("a socket");
    let words = std::sync::Mutex::new(Vec::new());
    let log = |line: &str| words.lock().expect("a lock").push(line.to_owned());
    let keeper = Keeper::new(vmm, &spec, terms, 2, files.snapshot(), &log).expect("a keeper");
    let keeper = keeper.while_it_fits(fits);
    let (sender, interrupts) = Interrupts::pair().expect("a pair");
    let ended = std::thread::scope(|scope| {
        let kept = scope.spawn(|| keeper.run(&listener, &interrupts));
        let _ends = Ends(&sender);
        test(&files);
        kept.join().expect("no panic")
    });
    drop(keeper);
    held.remove();
    assert_eq!(std::fs::read_dir(fake.at("pools")).expect("a folder").count(), 0);
    fake.is_clean();
    (words.into_inner().expect("a lock"), ended)
}

pub(crate) fn wait_until_warm(files: &PoolFiles) {
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
        let Taking::Taken(mut lease) = take(files, wish(&fake.at("image")), None).unwrap() else {
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
fn connections_that_a_restored_guest_cuts_are_made_again() {
    let Some(fake) = fake("cut") else { return };
    let words = with_pool(&fake, |files| {
        wait_until_warm(files);
        assert!(status(files).unwrap().unwrap().snapshot);
        stop(files).unwrap();
    });
    assert_eq!(words, [""; 0]);
}

#[test]
fn members_are_booted_where_restored_ones_cannot_be_set_right() {
    for mode in ["old-agent", "refuse:/snapshot/create"] {
        let Some(fake) = fake(mode) else { return };
        let words = with_pool(&fake, |files| {
            wait_until_warm(files);
            assert!(!status(files).unwrap().unwrap().snapshot);
            assert!(matches!(
                take(files, wish(&fake.at("image")), None).unwrap(),
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

/// Another image under the same name, as `from-docker` puts it there.
fn replace_image(fake: &Fake) {
    std::fs::write(fake.at("new"), "another image").expect("an image");
    std::fs::rename(fake.at("new"), fake.at("image")).expect("its place");
}

/// A Firecracker whose image is replaced once it has started the first machine.
#[derive(Debug)]
struct Replaced<'a> {
    vmm: firebrick_vmm::firecracker::Firecracker,
    fake: &'a Fake,
    done: AtomicBool,
}

impl Vmm for Replaced<'_> {
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError> {
        let machine = self.vmm.launch(spec)?;
        if !self.done.swap(true, Ordering::Relaxed) {
            replace_image(self.fake);
        }
        Ok(machine)
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn Machine>, LaunchError> {
        self.vmm.restore(snapshot)
    }

    fn facts(&self) -> VmmFacts {
        self.vmm.facts()
    }
}

#[test]
fn a_snapshot_of_an_image_that_was_replaced_is_never_restored_or_written_over() {
    let Some(fake) = fake("") else { return };
    let vmm = Replaced {
        vmm: fake.vmm(),
        fake: &fake,
        done: AtomicBool::new(false),
    };
    let (_, ended) = with_pool_of(&fake, &vmm, &|_| Ok(()), Vec::new(), |files| {
        // The first is of the image that was replaced in the meantime.
        wait_until_warm(files);
        let snapshot = |generation: &str| files.snapshot().join(generation);
        assert!(!snapshot("0").exists() && snapshot("1").exists());
        let mode = std::fs::metadata(snapshot("1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "a guest's memory is its owner's");
        let Taking::Taken(lease) = take(files, wish(&fake.at("image")), None).unwrap() else {
            panic!("one is warm");
        };
        replace_image(&fake);
        let Taking::Taken(_) = take(files, wish(&fake.at("image")), None).unwrap() else {
            panic!("it is waited for");
        };
        assert!(!snapshot("1").exists() && snapshot("2").exists());
        assert_eq!(status(files).unwrap().unwrap().failed, 0);
        drop(lease);
        stop(files).unwrap();
    });
    ended.unwrap();
    let log = fake.log();
    let folders = |path: &str, key: fn(&Value) -> &Value| {
        let asked = log.iter().filter(|entry| entry["path"] == path);
        let memory = asked.map(|entry| Path::new(key(&entry["body"]).as_str().expect("text")));
        let mut names: Vec<_> = memory
            .map(|memory| memory.parent().expect("a folder").file_name().expect("a name"))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let made = folders("/snapshot/create", |body| &body["mem_file_path"]);
    let used = folders("/snapshot/load", |body| &body["mem_backend"]["backend_path"]);
    assert_eq!(made, ["0", "1", "2"]);
    assert_eq!(used, ["1", "2"]);
}

#[test]
fn a_pool_that_no_longer_fits_lends_nothing_and_ends_when_all_have_come_back() {
    let Some(fake) = fake("") else { return };
    let other = AtomicBool::new(false);
    let fits = |_: &Path| match other.load(Ordering::Relaxed) {
        true => Err("it is a squashfs now".to_owned()),
        false => Ok(()),
    };
    let (words, ended) = with_pool_of(&fake, &fake.vmm(), &fits, Vec::new(), |files| {
        wait_until_warm(files);
        let Taking::Taken(mut lease) = take(files, wish(&fake.at("image")), None).unwrap() else {
            panic!("one is warm");
        };
        other.store(true, Ordering::Relaxed);
        replace_image(&fake);
        let taking = take(files, wish(&fake.at("image")), None).unwrap();
        assert!(
            matches!(&taking, Taking::Refused(reason) if reason == "it is a squashfs now"),
            "{taking:?}"
        );
        let mut client = Client::new(lease.agent().expect("a stream")).unwrap();
        client.ping(LIMIT).unwrap();
        assert_eq!(status(files).unwrap().unwrap().in_use, 1);
        drop((client, lease));
    });
    assert_eq!(ended.unwrap_err().to_string(), "it is a squashfs now");
    assert!(words.contains(&"it is a squashfs now".to_owned()), "{words:?}");
}

#[test]
fn however_many_want_machines_commands_are_answered() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let Some(fake) = fake("") else { return };
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit");
    with_pool(&fake, |files| {
        wait_until_warm(files);
        let line = serde_json::json!({ "take": wish(&fake.at("image")) });
        // As many as there is room for: two that get a machine, and 256 that wait.
        let waiting: Vec<_> = (0..258)
            .map(|_| {
                let mut stream = files.connect().unwrap().expect("a keeper");
                stream.write_all(format!("{line}\n").as_bytes()).unwrap();
                stream
            })
            .collect();
        // Each is heard by a thread of its own, and whoever comes before the last of them has been heard still finds room.
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = status(files).unwrap().unwrap();
            if (now.in_use, now.waiting) == (2, 256) {
                break;
            }
            assert!(Instant::now() < deadline, "{now:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let taking = take(files, wish(&fake.at("image")), None).unwrap();
        assert!(
            matches!(&taking, Taking::Refused(reason) if reason.contains("too many")),
            "{taking:?}"
        );
        // And who says nothing takes no more than the rest.
        let silent: Vec<_> = (0..70).map(|_| files.connect().unwrap()).collect();
        let refused = status(files).unwrap_err();
        assert!(refused.to_string().contains("too many"), "{refused}");
        drop(silent);
        let deadline = Instant::now() + LIMIT;
        while status(files).is_err() {
            assert!(Instant::now() < deadline);
        }
        drop(waiting);
        stop(files).unwrap();
    });
}
