//! Opening buckets in tests.

use std::time::Duration;

use firebrick_bucket::{Bucket, Options, Retry};

/// Options that do not wait long.
pub(crate) fn options(variables: Vec<(String, String)>) -> Options {
    Options {
        variables,
        system_ca: false,
        retry: Retry {
            retries: 4,
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_millis(100),
            limit: Duration::from_secs(80),
        },
        ..Options::default()
    }
}

pub(crate) fn open(address: &str, variables: Vec<(String, String)>) -> Bucket {
    Bucket::open(address, options(variables)).unwrap()
}

/// The same variables with some that say something else.
pub(crate) fn with(variables: &[(String, String)], changed: &[(&str, &str)]) -> Vec<(String, String)> {
    let kept = variables
        .iter()
        .filter(|(name, _)| changed.iter().all(|(other, _)| name != other))
        .cloned();
    let changed = changed
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    kept.chain(changed).collect()
}

/// Bytes that do not repeat, the same on every run.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}
