//! One end of a link under arbitrary packets and arbitrary users: its books are right and memory is bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_tunnel::fuzzing::link(data));
