//! The libFuzzer target: `cargo +nightly fuzz run open --features libfuzzer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shmkit_fuzz::run(data));
