//! See `firebrick_testkit::targets::ext4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firebrick_testkit::targets::ext4(bytes);
});
