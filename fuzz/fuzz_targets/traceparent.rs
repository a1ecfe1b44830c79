//! Trace contexts of clients, ours beside a naive check.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http::fuzzing::traceparent(data));
