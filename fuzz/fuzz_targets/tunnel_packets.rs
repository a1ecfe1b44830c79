//! A stream of packets: the same however it is cut, read as `prost` reads it, and written again as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloverleaf_tunnel::fuzzing::packets(data));
