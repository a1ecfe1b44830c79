//! See `cloverleaf_mesh::fuzzing::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_mesh::fuzzing::frames(data));
