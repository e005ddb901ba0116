//! When what happened during a boot, on one clock: that of the host, from the start of the VMM.
//!
//! The guest counts from its kernel's start, and tells in `status` what that clock shows now: so the kernel's start is known
//! on the host's clock to half the time that the answer took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebrick_protocol::agent::Status;

use crate::boot::attempt;
use crate::client::{CallError, Client};
use crate::machine::Machine;

/// How long an answered agent may take to tell its status.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// A boot, from the start of the VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// When the guest's kernel started to count.
    pub kernel_start: Duration,
    /// What the guest stamped, in order, as `docs/protocol-jsonrpc.md` names it.
    pub stamps: Vec<(String, Duration)>,
    /// When the host had the agent's first answer.
    pub answered: Duration,
}

impl Timeline {
    /// Asks an agent that has just answered; `launched` is when the VMM was started.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ask(client: &mut Client, launched: Instant, answered: Duration) -> Result<Timeline, CallError> {
        let before = launched.elapsed();
        let status = client.status(STATUS_LIMIT)?;
        let now = (before + launched.elapsed()) / 2;
        Ok(Timeline::of(&status, now, answered))
    }

    fn of(status: &Status, now: Duration, answered: Duration) -> Timeline {
        let kernel_start = now.saturating_sub(Duration::from_micros(status.boottime_us));
        let on_host = |us| kernel_start + Duration::from_micros(us);
        let stamps = status.boot.iter();
        let mut stamps: Vec<(String, Duration)> = stamps
            .map(|stamp| (stamp.event.clone(), on_host(stamp.boottime_us)))
            .collect();
        stamps.sort_by_key(|(_, at)| *at);
        Timeline {
            kernel_start,
            stamps,
            answered,
        }
    }

    /// Waits for the agent of a machine that has just been launched. `None` if the machine ends before, or `stop` is set.
    pub fn of_machine(machine: &dyn Machine, launched: Instant, stop: &AtomicBool) -> Option<Timeline> {
        loop {
            let deadline = Instant::now() + STATUS_LIMIT;
            if let Some(mut client) = attempt(machine, deadline).ok()? {
                return Timeline::ask(&mut client, launched, launched.elapsed()).ok();
            }
            let ended = machine.wait(Duration::ZERO).is_ok_and(|exit| exit.is_some());
            if ended || stop.load(Ordering::Relaxed) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_clock_is_laid_over_the_hosts() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "version": "1", "protocol": 1, "pid1": true, "boottime_us": 900_000, "jobs": 0, "connections": 1,
            "boot": [{"event": "pid1_start", "boottime_us": 800_000}, {"event": "stage1_start", "boottime_us": 500_000}],
        }))
        .unwrap();
        let ms = Duration::from_millis;
        let timeline = Timeline::of(&status, ms(1000), ms(990));
        assert_eq!(timeline.kernel_start, ms(100));
        assert_eq!(
            timeline.stamps,
            [
                ("stage1_start".to_owned(), ms(600)),
                ("pid1_start".to_owned(), ms(900))
            ]
        );
        // A guest that was restored has an older clock than its VMM.
        assert_eq!(Timeline::of(&status, ms(10), ms(9)).kernel_start, ms(0));
    }
}
