//! See `firebrick_testkit::targets::store_tables`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firebrick_testkit::targets::store_tables(bytes);
});
