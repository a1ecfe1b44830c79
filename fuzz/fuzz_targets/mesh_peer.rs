//! See `cloverleaf_mesh::fuzzing::peer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_mesh::fuzzing::peer(data));
