//! Heads of requests, ours beside hyper's.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::fuzzing::request_head(data));
