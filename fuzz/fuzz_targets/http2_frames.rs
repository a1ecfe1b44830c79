//! A client's bytes: the same calls, payload and answers, however they are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http2::fuzzing::frames(data));
