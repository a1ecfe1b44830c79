//! The cases: what is asked of which ways, and how the figures are called. Plain data; it knows no process.

use super::{Way, field::port, load::Asked};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Case {
    /// A link of 1 Gbit/s between two hosts, one connection
    Link,
    /// As fast as it goes over loopback
    Bulk,
    /// A byte there and back
    Rtt,
    /// Connect, a byte there and back, close
    Conn,
    /// 1,000 idle connections
    Idle,
    /// A connection beside one that nobody reads
    Unread,
    /// Targets that speak first
    First,
    /// The end of one direction alone
    Half,
    /// Cloverleaf at both sides
    Forward,
}

/// In the order in which they run.
pub(super) const ALL: [Case; 9] = [
    Case::Link,
    Case::Bulk,
    Case::Rtt,
    Case::Conn,
    Case::Idle,
    Case::Unread,
    Case::First,
    Case::Half,
    Case::Forward,
];

pub(super) const UPLOAD: &str = "upload";
pub(super) const DOWNLOAD: &str = "download";
pub(super) const BOTH_UP: &str = "both at once, up";
pub(super) const BOTH_DOWN: &str = "both at once, down";
pub(super) const UPLOAD_1: &str = "upload, 1 connection";
pub(super) const UPLOAD_8: &str = "upload, 8 connections";
pub(super) const DOWNLOAD_1: &str = "download, 1 connection";
pub(super) const DOWNLOAD_8: &str = "download, 8 connections";
pub(super) const QUIET: &str = "nothing beside it";
pub(super) const AWAKE: &str = "cores kept awake";
pub(super) const BESIDE_BULK: &str = "beside 2 downloads";
pub(super) const WORKER_1: &str = "1 worker";
pub(super) const WORKERS_32: &str = "32 workers";
pub(super) const IDLE: &str = "1,000 connections";
pub(super) const UNREAD_CLIENT: &str = "a client that reads nothing";
pub(super) const UNREAD_TARGET: &str = "a target that reads nothing";
pub(super) const GREETINGS: &str = "300 dials, one by one";
pub(super) const ANSWERS: &str = "5 bytes, their end, 64 KiB back";

impl Case {
    pub(super) fn name(self) -> &'static str {
        match self {
            Case::Link => "link",
            Case::Bulk => "bulk",
            Case::Rtt => "rtt",
            Case::Conn => "conn",
            Case::Idle => "idle",
            Case::Unread => "unread",
            Case::First => "first",
            Case::Half => "half",
            Case::Forward => "forward",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Case::Link => "A link of 1 Gbit/s, one connection",
            Case::Bulk => "As fast as it goes over loopback",
            Case::Rtt => "A byte there and back",
            Case::Conn => "Connections: dial, a byte there and back, close",
            Case::Idle => "1,000 idle connections",
            Case::Unread => "Round trips and a dial beside a connection that nobody reads",
            Case::First => "Targets that speak first",
            Case::Half => "The end of one direction alone",
            Case::Forward => "Cloverleaf at both sides: `tunnel forward` in front, one connection",
        }
    }

    /// Two where there is a link.
    pub(super) fn hosts(self) -> u8 {
        if self == Case::Link { 2 } else { 1 }
    }

    /// Those that can do it, in the order in which they take turns.
    pub(super) fn ways(self) -> &'static [Way] {
        use Way::{Direct, Forward, GoRelay, Grpc, GrpcReuse, HttpConnect, Rathole};
        match self {
            Case::Link => &[Direct, Grpc, HttpConnect, Forward],
            Case::Rtt => &[Direct, Grpc, GoRelay, HttpConnect, Forward],
            Case::Bulk => &[Direct, Grpc, GoRelay, HttpConnect],
            // Beside each other: what they are held against changes within minutes.
            Case::Conn => &[Direct, Grpc, GoRelay, GrpcReuse, HttpConnect, Forward],
            Case::Unread | Case::First => &[Direct, Grpc, GrpcReuse, HttpConnect, Forward],
            Case::Idle => &[Grpc, GoRelay, GrpcReuse, HttpConnect, Forward],
            // The official library ends no direction alone.
            Case::Half => &[Direct, HttpConnect, Forward],
            Case::Forward => &[Direct, Forward, Rathole],
        }
    }

    /// What [`super::reading`] gives. A way that has no figure in a column has none in those after it.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Case::Link => &["Mbit/s", "cores, server", "cores, agent"],
            Case::Bulk => {
                &["Mbit/s", "CPU-s a GB, client", "CPU-s a GB, server", "CPU-s a GB, agent"]
            }
            Case::Rtt => &["p50, µs", "p99, µs", "Mbit/s beside it"],
            Case::Conn => &[
                "connections a second",
                "p50, ms",
                "p99, ms",
                "CPU µs each, client",
                "CPU µs each, server",
                "CPU µs each, agent",
                "CPU µs each, forward",
            ],
            Case::Idle => &[
                "RSS, MB, server",
                "RSS, MB, agent",
                "anonymous, server",
                "anonymous, agent",
                "at rest, server",
                "at rest, agent",
                "KB each, server",
                "KB each, agent",
                "RSS, MB, forward",
                "KB each, forward",
            ],
            Case::Unread => &["round trip p50, µs", "the longest, ms", "a new dial, ms"],
            Case::First => &["greetings of 300", "p50, ms"],
            Case::Half => &["bytes back, least of 20"],
            Case::Forward => {
                &["Gbit/s", "CPU-s a GB, all", "of it server", "of it agent", "of it forward"]
            }
        }
    }

    /// Whether the first column is compared with the direct way's.
    pub(super) fn is_compared(self) -> bool {
        matches!(self, Case::Link | Case::Bulk | Case::Rtt | Case::Conn | Case::Forward)
    }

    /// In the order in which they run; all over the same ends.
    pub(super) fn asked(self) -> Vec<Asked> {
        use port::{ANSWERS as ANSWERING, BOTH, DEAF, ECHO, GREETS, SINK, SOURCE};
        let one =
            |what, load, port, more| Asked { what, load, port, beside: None, awake: false, more };
        let two = |what, load, port, beside, more| Asked {
            beside: Some(beside),
            ..one(what, load, port, more)
        };
        match self {
            // Both sides' queues fill, overflow and find their measure before it counts.
            Case::Link => vec![
                one(UPLOAD, "bulk", SINK, &["-direction=up", "-write=65536", "-warm-up=2s"]),
                one(DOWNLOAD, "bulk", SOURCE, &["-direction=down", "-write=65536", "-warm-up=2s"]),
                one(BOTH_UP, "bulk", BOTH, &["-direction=both", "-write=65536", "-warm-up=2s"]),
            ],
            Case::Bulk => vec![
                one(UPLOAD_1, "bulk", SINK, UP),
                one(UPLOAD_8, "bulk", SINK, UP_8),
                one(DOWNLOAD_1, "bulk", SOURCE, DOWN),
                one(DOWNLOAD_8, "bulk", SOURCE, DOWN_8),
            ],
            Case::Rtt => vec![
                one(QUIET, "rtt", ECHO, &[]),
                Asked { awake: true, ..one(AWAKE, "rtt", ECHO, &[]) },
                two(BESIDE_BULK, "rtt", ECHO, SOURCE, &["-beside=2", "-write=262144"]),
            ],
            Case::Conn => vec![
                one(WORKER_1, "connections", ECHO, &[]),
                one(WORKERS_32, "connections", ECHO, &["-at-once=32"]),
            ],
            Case::Idle => vec![one(IDLE, "idle", ECHO, &["-n=1000", "-at-once=8"])],
            Case::Unread => vec![
                two(UNREAD_CLIENT, "unread", ECHO, SOURCE, &["-direction=down"]),
                two(UNREAD_TARGET, "unread", ECHO, DEAF, &["-direction=up"]),
            ],
            Case::First => vec![one(GREETINGS, "greetings", GREETS, &["-n=300"])],
            Case::Half => vec![one(ANSWERS, "half-close", ANSWERING, &["-n=20"])],
            Case::Forward => vec![
                one(UPLOAD, "bulk", SINK, UP),
                one(DOWNLOAD, "bulk", SOURCE, DOWN),
                one(BOTH_UP, "bulk", BOTH, UP_AND_DOWN),
            ],
        }
    }
}

const UP: &[&str] = &["-direction=up", "-write=65536"];
const DOWN: &[&str] = &["-direction=down", "-write=65536"];
const UP_8: &[&str] = &["-direction=up", "-write=65536", "-at-once=8"];
const DOWN_8: &[&str] = &["-direction=down", "-write=65536", "-at-once=8"];
const UP_AND_DOWN: &[&str] = &["-direction=both", "-write=65536"];
