//! What a server and an agent count. Written on the worker threads, read by a scrape.
//!
//! Must not know metrics' names or formats.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::packet::Packet;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Counts one more until what is returned is dropped.
    pub(crate) fn count(&self) -> Counted<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    /// Now; never below 0.
    #[must_use]
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// One of a [`Gauge`].
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a Gauge);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Durations of dials in buckets.
#[derive(Debug)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// The original's buckets: from 5 ms to 12.5 s.
pub const BOUNDS_MICROS: [u64; 12] = [
    5_000, 25_000, 100_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 5_000_000,
    7_500_000, 10_000_000, 12_500_000,
];

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_micros: AtomicU64::new(0) }
    }
}

impl Durations {
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many fell into each bucket, the last being what is longer than all bounds; and the sum in seconds.
    #[must_use]
    pub fn get(&self) -> (Vec<u64>, f64) {
        let buckets = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        (buckets, sum.as_secs_f64())
    }
}

/// Packets of one direction, by type.
#[derive(Debug, Default)]
pub struct Packets([Counter; PACKET_TYPES.len()]);

/// The types in the order of [`Packets::get`].
pub const PACKET_TYPES: [&str; 9] = [
    "DIAL_REQ",
    "DIAL_RSP",
    "CLOSE_REQ",
    "CLOSE_RSP",
    "DATA",
    "DIAL_CLS",
    "DRAIN",
    "CREDIT",
    "FINISH",
];

impl Packets {
    pub(crate) fn count(&self, packet: &Packet) {
        let index = match packet {
            Packet::DialRequest { .. } => 0,
            Packet::DialResponse { .. } => 1,
            Packet::CloseRequest { .. } => 2,
            Packet::CloseResponse { .. } => 3,
            Packet::Data { .. } => 4,
            Packet::CloseDial { .. } => 5,
            Packet::Drain => 6,
            Packet::Credit { .. } => 7,
            Packet::Finish { .. } => 8,
        };
        self.0[index].add(1);
    }

    /// How many of each type.
    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PACKET_TYPES.into_iter().zip(&self.0).map(|(name, count)| (name, count.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let durations = Durations::default();
        for micros in [1, 5_000, 5_001, 12_500_000, 12_500_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let (buckets, sum) = durations.get();
        assert_eq!((buckets[0], buckets[1], buckets[11], buckets[12]), (2, 1, 1, 1));
        assert!((sum - 25.010_003).abs() < 1e-6);
    }

    #[test]
    fn types_are_named_as_packets_are() {
        let packets = Packets::default();
        let all = [Packet::Drain, Packet::CloseDial { dial: 1 }, Packet::Finish { connection: 1 }];
        for packet in &all {
            packets.count(packet);
            assert!(packets.get().any(|(name, count)| name == packet.name() && count == 1));
        }
    }
}
