//! Proves what `docs/sandbox.md` promises, on an Alpine root: that steps work, that their layers say what they changed, and that the
//! host is as it was behind scripts that try otherwise.
//!
//! Each test of [`inside`] runs as whoever runs the tests. [`callers`] then runs all of them again as others: a user with ranges of
//! ids, one without, and root of `unshare -r`.

mod support;

mod callers;
mod inside;
