//! libFuzzer's way in to the target of this name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conclave_fuzz::targets::run("orders", bytes));
