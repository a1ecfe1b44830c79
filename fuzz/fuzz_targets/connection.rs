//! All that a client sends on one connection, ours beside hyper's.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::fuzzing::connection(data));
