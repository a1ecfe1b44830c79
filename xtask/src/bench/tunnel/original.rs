//! What the originals (apiserver-network-proxy of August 2026, its defaults) did on a machine of this size, with the
//! same client and mutual TLS. Measured once, weeks before: other work used 0.7 to 0.9 of the two cores, so its Mbit/s
//! and connections a second are lower bounds; processor time and the slow link are sturdier. Not of the same run as
//! ours.

use super::{
    Way,
    case::{
        ANSWERS, AWAKE, BESIDE_BULK, BOTH_DOWN, BOTH_UP, Case, DOWNLOAD, DOWNLOAD_1, DOWNLOAD_8,
        GREETINGS, IDLE, UNREAD_CLIENT, UPLOAD, UPLOAD_1, UPLOAD_8, WORKER_1, WORKERS_32,
    },
};

/// Case, row, way, and what was measured in the order of the case's first columns.
type Measured = (Case, &'static str, Way, &'static str);

const MEASURED: &[Measured] = &[
    (Case::Link, UPLOAD, Way::Direct, "954"),
    (Case::Link, UPLOAD, Way::Grpc, "950 [931 .. 952]"),
    (Case::Link, UPLOAD, Way::HttpConnect, "950 [938 .. 951]"),
    (Case::Link, DOWNLOAD, Way::Direct, "953"),
    (Case::Link, DOWNLOAD, Way::Grpc, "893 [767 .. 903]"),
    (Case::Link, DOWNLOAD, Way::HttpConnect, "934 [779 .. 935]"),
    (Case::Link, BOTH_UP, Way::Direct, "957 [951 .. 957]"),
    (Case::Link, BOTH_UP, Way::Grpc, "577 [307 .. 613]; cores 0.42, 0.35"),
    (Case::Link, BOTH_UP, Way::HttpConnect, "901 [476 .. 940]; cores 0.50, 0.45"),
    (Case::Link, BOTH_DOWN, Way::Direct, "952 [941 .. 953]"),
    (Case::Link, BOTH_DOWN, Way::Grpc, "688 [605 .. 851]"),
    (Case::Link, BOTH_DOWN, Way::HttpConnect, "790 [203 .. 920]"),
    (Case::Bulk, UPLOAD_1, Way::Direct, "31,905"),
    (Case::Bulk, UPLOAD_1, Way::Grpc, "2,213 [2,036 .. 3,118]; CPU server 2.26, agent 1.93"),
    (Case::Bulk, UPLOAD_1, Way::HttpConnect, "2,370 [2,067 .. 2,848]; CPU server 1.37, agent 1.84"),
    (Case::Bulk, UPLOAD_8, Way::Grpc, "2,209"),
    (Case::Bulk, UPLOAD_8, Way::HttpConnect, "2,587 [2,228 .. 4,446]"),
    (Case::Bulk, DOWNLOAD_1, Way::Direct, "31,087"),
    (Case::Bulk, DOWNLOAD_1, Way::Grpc, "1,354 and 1,784; CPU server 2.71, agent 2.58"),
    (Case::Bulk, DOWNLOAD_1, Way::HttpConnect, "1,675 and 2,783; CPU server 2.67, agent 2.39"),
    (Case::Bulk, DOWNLOAD_8, Way::Grpc, "1,404 and 2,106"),
    (Case::Bulk, DOWNLOAD_8, Way::HttpConnect, "1,797 and 2,354"),
    (Case::Rtt, AWAKE, Way::Direct, "14.7; 38"),
    (Case::Rtt, AWAKE, Way::Grpc, "216; 532"),
    (Case::Rtt, AWAKE, Way::HttpConnect, "179; 338"),
    (Case::Rtt, BESIDE_BULK, Way::Direct, "19; 875"),
    (Case::Rtt, BESIDE_BULK, Way::Grpc, "7,498; 31,079"),
    (Case::Rtt, BESIDE_BULK, Way::HttpConnect, "10,967; 35,221"),
    (Case::Conn, WORKER_1, Way::Direct, "6,615; p50 0.09"),
    (Case::Conn, WORKER_1, Way::Grpc, "339 [295 .. 394]; p50 2.2"),
    (Case::Conn, WORKER_1, Way::GrpcReuse, "774 [752 .. 848], quiet machine 1,004; p50 0.86"),
    (Case::Conn, WORKER_1, Way::HttpConnect, "525 [480 .. 546]; p50 1.7"),
    (Case::Conn, WORKERS_32, Way::Direct, "9,655"),
    (Case::Conn, WORKERS_32, Way::Grpc, "591 [550 .. 694], quiet machine 972"),
    (
        Case::Conn,
        WORKERS_32,
        Way::GrpcReuse,
        "3,024 [2,150 .. 3,176], quiet machine 3,800 to 4,040; CPU about 121, 175",
    ),
    (Case::Conn, WORKERS_32, Way::HttpConnect, "1,325 [913 .. 1,346]"),
    (Case::Idle, IDLE, Way::Grpc, "120; 56; at rest 38, 37"),
    (Case::Idle, IDLE, Way::HttpConnect, "95; 55; at rest 39, 39"),
    (Case::Unread, UNREAD_CLIENT, Way::Grpc, "blocked for 8.0 s, until the client closed it"),
    (Case::Unread, UNREAD_CLIENT, Way::HttpConnect, "blocked for good: 40 s; the dial failed"),
    (Case::First, GREETINGS, Way::Grpc, "105 to 120"),
    (Case::First, GREETINGS, Way::GrpcReuse, "about 100"),
    (Case::First, GREETINGS, Way::HttpConnect, "87 to 126"),
    (Case::Half, ANSWERS, Way::HttpConnect, "0"),
];

/// What stands beside a row, if it was measured.
pub(super) fn beside(case: Case, what: &str, through: &str) -> Option<&'static str> {
    let found = MEASURED
        .iter()
        .find(|(of, row, way, _)| *of == case && *row == what && way.name() == through);
    found.map(|(.., text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_the_originals_has_a_row_of_ours() {
        for (case, what, way, _) in MEASURED {
            assert!(case.ways().contains(way), "{case:?} {way:?}");
            let mut rows: Vec<&str> = case.asked().iter().map(|asked| asked.what).collect();
            if rows.contains(&BOTH_UP) {
                rows.push(BOTH_DOWN);
            }
            assert!(rows.contains(what), "{case:?} {what}");
        }
    }
}
