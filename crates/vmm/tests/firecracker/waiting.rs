//! Those who want a machine of a pool and go, are silent, or are interrupted.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::pool::{PoolFiles, PoolStatus, Taking, Wish, status, stop, take};
use firebrick_vmm::{LaunchError, Machine, MachineSpec, Snapshot, Vmm, VmmFacts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::fake::{Fake, LIMIT, fake};
use crate::pools::{wait_until_warm, wish, with_pool, with_pool_of};

/// Asks for a machine and does not wait for the answer.
fn ask(files: &PoolFiles, wish: &Wish) -> UnixStream {
    let mut stream = files.connect().expect("an answer").expect("a keeper");
    let line = json!({ "take": wish });
    stream
        .write_all(format!("{line}\n").as_bytes())
        .expect("there is room");
    stream
}

/// Waits until the pool is so.
fn until(files: &PoolFiles, is_so: impl Fn(&PoolStatus) -> bool) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = status(files).expect("an answer").expect("a pool");
        if is_so(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A Firecracker that starts nothing before it may.
#[derive(Debug)]
struct Gated {
    vmm: firebrick_vmm::firecracker::Firecracker,
    is_open: AtomicBool,
}

impl Gated {
    fn of(fake: &Fake) -> Gated {
        Gated {
            vmm: fake.vmm(),
            is_open: AtomicBool::new(false),
        }
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

impl Vmm for Gated {
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError> {
        let deadline = Instant::now() + LIMIT;
        while !self.is_open.load(Ordering::Relaxed) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.vmm.launch(spec)
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn Machine>, LaunchError> {
        self.vmm.restore(snapshot)
    }

    fn facts(&self) -> VmmFacts {
        self.vmm.facts()
    }
}

#[test]
fn who_leaves_loses_the_place_and_nothing_is_lent_to_nobody() {
    let Some(fake) = fake("") else { return };
    let vmm = Gated::of(&fake);
    let wish = Wish {
        wait_ms: u64::MAX,
        ..wish(&fake.at("image"))
    };
    let (_, ended) = with_pool_of(&fake, &vmm, &|_| Ok(()), Vec::new(), |files| {
        let waiting: Vec<_> = (0..3).map(|_| ask(files, &wish)).collect();
        until(files, |status| status.waiting == 3);
        drop(waiting);
        until(files, |status| status.waiting == 0);
        vmm.open();
        wait_until_warm(files);
        let status = status(files).unwrap().unwrap();
        assert_eq!((status.used, status.in_use, status.warm), (0, 0, 2));
        stop(files).unwrap();
    });
    ended.unwrap();
}

#[test]
fn a_machine_whose_taker_has_left_stays_warm() {
    let Some(fake) = fake("") else { return };
    with_pool(&fake, |files| {
        wait_until_warm(files);
        // It is looked at before it is given away, and that takes a while now.
        let all: Vec<Pid> = fake
            .firecrackers()
            .into_iter()
            .filter_map(Pid::from_raw)
            .collect();
        let send = |signal| {
            all.iter()
                .for_each(|pid| kill_process(*pid, signal).expect("it is there"))
        };
        send(Signal::STOP);
        let taker = ask(files, &wish(&fake.at("image")));
        until(files, |status| status.in_use == 1);
        drop(taker);
        send(Signal::CONT);
        until(files, |status| status.in_use == 0 && status.waiting == 0);
        wait_until_warm(files);
        assert_eq!(status(files).unwrap().unwrap().used, 0);
        let taking = take(files, wish(&fake.at("image")), None).unwrap();
        assert!(matches!(taking, Taking::Taken(_)), "{taking:?}");
        stop(files).unwrap();
    });
}

#[test]
fn a_signal_ends_the_wait_and_the_place() {
    let Some(fake) = fake("") else { return };
    let vmm = Gated::of(&fake);
    let wish = wish(&fake.at("image"));
    let (_, ended) = with_pool_of(&fake, &vmm, &|_| Ok(()), Vec::new(), |files| {
        let (sender, interrupts) = Interrupts::pair().unwrap();
        let taking = std::thread::scope(|scope| {
            let taking = scope.spawn(|| take(files, wish, Some(&interrupts)));
            until(files, |status| status.waiting == 1);
            sender.send(15);
            taking.join().expect("no panic").unwrap()
        });
        assert!(matches!(taking, Taking::Interrupted { signal: 15 }), "{taking:?}");
        until(files, |status| status.waiting == 0);
        vmm.open();
        stop(files).unwrap();
    });
    ended.unwrap();
}

#[test]
fn who_does_not_read_the_answer_does_not_hold_the_keeper() {
    let Some(fake) = fake("") else { return };
    // An answer that does not go into a socket whole.
    let others = vec![("note".to_owned(), "x".repeat(1 << 20))];
    let (_, ended) = with_pool_of(&fake, &fake.vmm(), &|_| Ok(()), others, |files| {
        let mut silent = files.connect().unwrap().expect("a keeper");
        silent.write_all(b"\"status\"\n").unwrap();
        let mut first = [0];
        silent.read_exact(&mut first).unwrap();
        // The keeper ends the connection, and only then it can end itself.
        let hung_up = {
            let mut fds = [PollFd::new(&silent, PollFlags::RDHUP)];
            let limit = Timespec::try_from(LIMIT).unwrap();
            poll(&mut fds, Some(&limit)).unwrap() == 1
        };
        drop(silent);
        stop(files).unwrap();
        assert!(hung_up);
    });
    ended.unwrap();
}
