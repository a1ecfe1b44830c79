//! The compiled tables of rules against the naive loop.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::routing::fuzz_compare(data));
