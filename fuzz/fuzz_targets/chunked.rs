//! Chunked bodies in pieces and whole, ours beside a naive decoder and hyper's.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::fuzzing::chunked(data));
