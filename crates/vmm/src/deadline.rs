//! The moment from which on something has taken too long.

use std::time::{Duration, Instant};

/// Nobody waits longer. A limit may be any number, and an [`Instant`] cannot tell all of them.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The moment that is `limit` after now, or for ever after.
pub(crate) fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_all_clocks_is_for_ever() {
        let century = Duration::from_secs(100 * 365 * 86_400);
        assert!(after(Duration::MAX) > Instant::now() + century);
        let soon = after(Duration::from_secs(1)).saturating_duration_since(Instant::now());
        assert!(soon <= Duration::from_secs(1));
    }
}
