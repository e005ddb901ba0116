//! The rate of the host's time-stamp counter.
//!
//! Under software emulation the guest's counter is the host's. A guest left to itself measures its rate against an
//! emulated timer, which under load gives nonsense or never ends; so it is told.

use std::time::{Duration, Instant};

/// How long one measurement takes. Each end is known to well under a microsecond: the result is good to some parts in a
/// million, where the guest needs one in a thousand.
const SPAN: Duration = Duration::from_millis(50);

/// The rate in kHz.
#[cfg(target_arch = "x86_64")]
pub(super) fn measure_khz() -> u64 {
    let (start_ticks, start) = read_together();
    std::thread::sleep(SPAN);
    let (end_ticks, end) = read_together();
    let ticks = u128::from(end_ticks.wrapping_sub(start_ticks));
    let khz = ticks * 1_000_000 / end.duration_since(start).as_nanos().max(1);
    u64::try_from(khz).unwrap_or(0)
}

/// The counter and the clock at one moment: the best of several tries, for the host may stop us in between.
#[cfg(target_arch = "x86_64")]
fn read_together() -> (u64, Instant) {
    let read = || {
        let before = ticks();
        let now = Instant::now();
        let after = ticks();
        (
            after.wrapping_sub(before),
            before.wrapping_add(after.wrapping_sub(before) / 2),
            now,
        )
    };
    let (_, ticks, now) = (0..20)
        .map(|_| read())
        .min_by_key(|read| read.0)
        .expect("there are twenty");
    (ticks, now)
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    #[expect(
        unsafe_code,
        reason = "the instruction has no safe form in the standard library"
    )]
    // SAFETY: reading the counter has no side effect, and every x86_64 processor has it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_under_load() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let (one, two) = (measure_khz(), measure_khz());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(one > 100_000, "{one} kHz");
            assert!(one.abs_diff(two) < one / 10_000, "{one} and {two} kHz");
        });
    }
}
