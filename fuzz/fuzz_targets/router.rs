//! The compiled tables of rules beside the naive loop.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::fuzzing::router(data));
