//! See `firebrick_testkit::targets::store_documents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firebrick_testkit::targets::store_documents(bytes);
});
