//! What a server and an agent count. Written on the worker threads, read by a scrape.
//!
//! Must not know metrics' names or formats.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
        self.add();
        Counted(self)
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        self.0.sub();
    }
}

/// The upper bounds of a histogram's buckets.
pub trait Bounds {
    /// In microseconds, growing.
    const MICROS: &'static [u64];
}

/// A server's dials: from 5 ms to 12.5 s.
#[derive(Debug)]
pub struct Dials;

impl Bounds for Dials {
    const MICROS: &'static [u64] = &[
        5_000, 25_000, 100_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 5_000_000,
        7_500_000, 10_000_000, 12_500_000,
    ];
}

/// An agent's dials: from 5 ms to 30 s, as the original has them.
#[derive(Debug)]
pub struct TargetDials;

impl Bounds for TargetDials {
    const MICROS: &'static [u64] =
        &[5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 30_000_000];
}

/// Writing to clients: from 1 µs to 12.5 s, as the original has it.
#[derive(Debug)]
pub struct Writes;

impl Bounds for Writes {
    const MICROS: &'static [u64] =
        &[1, 10, 100, 5_000, 25_000, 100_000, 500_000, 2_500_000, 12_500_000];
}

/// Lives of connections: from a second to a day.
#[derive(Debug)]
pub struct Lives;

impl Bounds for Lives {
    const MICROS: &'static [u64] = &[
        1_000_000,
        5_000_000,
        15_000_000,
        60_000_000,
        300_000_000,
        900_000_000,
        3_600_000_000,
        14_400_000_000,
        86_400_000_000,
    ];
}

/// A connection's life, counted when it ends.
#[derive(Debug)]
pub(crate) struct Life<'a> {
    durations: &'a Durations<Lives>,
    since: Instant,
    _open: Counted<'a>,
}

impl<'a> Life<'a> {
    /// One that begins; the gauge has one more until it ends.
    pub(crate) fn begin(open: &'a Gauge, durations: &'a Durations<Lives>) -> Self {
        Self { durations, since: Instant::now(), _open: open.count() }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.durations.observe(self.since.elapsed());
    }
}

/// Durations in buckets.
#[derive(Debug)]
pub struct Durations<B> {
    buckets: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
    bounds: PhantomData<B>,
}

impl<B: Bounds> Default for Durations<B> {
    fn default() -> Self {
        let buckets = (0..=B::MICROS.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, sum_micros: AtomicU64::new(0), bounds: PhantomData }
    }
}

impl<B: Bounds> Durations<B> {
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = B::MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The upper bound of each bucket in seconds and how many fell into it, one fewer bounds than counts: the last is
    /// what is longer than all; and the sum in seconds.
    #[must_use]
    pub fn get(&self) -> (Vec<f64>, Vec<u64>, f64) {
        let bounds = B::MICROS.iter().map(|micros| *micros as f64 / 1e6).collect();
        let buckets = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        (bounds, buckets, sum.as_secs_f64())
    }
}

/// Things by names of which there are few, and all known: rare ones, for a lock is taken.
#[derive(Debug, Default)]
pub struct Named<const NAMES: usize>(Mutex<BTreeMap<[&'static str; NAMES], u64>>);

impl<const NAMES: usize> Named<NAMES> {
    pub(crate) fn add(&self, names: [&'static str; NAMES]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(names).or_default() += 1;
    }

    /// Those that there have been.
    #[must_use]
    pub fn get(&self) -> Vec<([&'static str; NAMES], u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(names, count)| (*names, *count)).collect()
    }
}

/// Streams of packets that failed: segment, gRPC's name of the code, type of the packet.
pub type StreamErrors = Named<3>;

/// The type of a packet that is not known, as where none could be received.
pub(crate) const NO_PACKET: &str = "Unknown";

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
        let durations = Durations::<Dials>::default();
        for micros in [1, 5_000, 5_001, 12_500_000, 12_500_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let (bounds, buckets, sum) = durations.get();
        assert_eq!((bounds[0], bounds.len() + 1), (0.005, buckets.len()));
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
