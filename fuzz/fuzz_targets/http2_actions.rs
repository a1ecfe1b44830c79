//! A connection under arbitrary frames and arbitrary users: its books are right, windows are kept, nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_http2::fuzzing::actions(data));
