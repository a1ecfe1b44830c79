//! See `cloverleaf_mesh::fuzzing::files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| cloverleaf_mesh::fuzzing::files(text));
