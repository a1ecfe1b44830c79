//! What the fuzz targets call: arbitrary bytes as a stream of packets, held against a library for protocol buffers, and
//! as what happens to a link. Built for tests and with the feature `fuzzing` alone; [`replay`] has the corpus and its
//! mutations in ordinary tests.
//!
//! Must not be needed by anything that serves.

mod actions;
mod messages;
#[cfg(test)]
mod replay;

pub use actions::link;
pub use messages::packets;
