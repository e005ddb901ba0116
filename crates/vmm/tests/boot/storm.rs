//! Boots in a row while every core is busy: all of them answer.
//!
//! `FIREBRICK_BOOTS` says how many; `scripts/boot-storm` sets it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common;
use crate::host::{ANSWER_LIMIT, host};
use crate::images;

const BOOTS: usize = 6;

#[test]
#[expect(clippy::print_stderr, reason = "the figures are worth seeing")]
fn boots_under_load_all_answer() {
    let Some(image) = images::any(json!({})) else {
        return;
    };
    let Some(host) = host() else { return };
    let boots =
        std::env::var("FIREBRICK_BOOTS").map_or(BOOTS, |text| text.parse().expect("a number of boots"));
    let (mut times, mut failures) = (Vec::new(), Vec::new());
    busy(|| {
        for boot in 1..=boots {
            let start = Instant::now();
            match firebrick_vmm::boot(&host.qemu, &host.spec(&image.path), None) {
                Ok(mut booted) => {
                    let status = booted.client.status(ANSWER_LIMIT).expect("a status");
                    assert_eq!(status.warnings, [""; 0], "boot {boot}");
                    times.push(booted.took);
                }
                Err(error) => failures.push(format!("boot {boot}: {}", common::chain(&error))),
            }
            eprintln!("boot {boot} of {boots}: {:.2} s", start.elapsed().as_secs_f64());
        }
    });
    times.sort_unstable();
    let at = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f64);
    eprintln!(
        "{} of {boots} boots answered; min {:.2} s, median {:.2} s, max {:.2} s",
        times.len(),
        at(0),
        at(times.len() / 2),
        at(times.len().saturating_sub(1))
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs `work` while as many threads as there are cores do nothing but spin.
fn busy(work: impl FnOnce()) {
    /// Ends the threads, also when `work` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        work();
    });
}
