//! What the fuzz targets call: a client's bytes, which come to the same however they are cut, and everything that can
//! happen to a connection. Built for tests and with the feature `fuzzing` alone; `replay` has the corpus and its
//! mutations in ordinary tests.
//!
//! Must not be needed by anything that serves.

mod actions;
mod frames;
#[cfg(test)]
mod replay;

pub use actions::actions;
pub use frames::frames;

use std::io::IoSlice;

use bytes::Bytes;

use crate::{Core, Ends, Limits};

/// Small, so that every bound is met.
const LIMITS: Limits = Limits {
    stream_window_bytes: 70_000,
    connection_window_bytes: 100_000,
    frame_bytes_max: 20_000,
    send_buffer_bytes: 30_000,
    streams_max: 4,
    header_bytes_max: 2000,
    header_table_bytes: 100,
    reset_streams_max: 3,
};

#[derive(Debug, Default)]
pub(crate) struct Nobody;

impl Ends for Nobody {
    fn readable(&mut self) {}
    fn writable(&mut self) {}
}

pub(crate) type Fuzzed = Core<Bytes, Nobody>;

/// All that is to be written.
pub(crate) fn written(core: &mut Fuzzed) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = core.output(&mut slices);
        let some: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        if some.is_empty() {
            return all;
        }
        core.advance(some.len());
        all.extend(some);
    }
}
