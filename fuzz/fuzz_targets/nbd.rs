//! See `firebrick_testkit::targets::nbd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firebrick_testkit::targets::nbd(bytes);
});
