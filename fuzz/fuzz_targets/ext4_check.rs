//! See `firebrick_testkit::targets::ext4_check`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firebrick_testkit::targets::ext4_check(bytes);
});
