//! What each packet does to a connection, case by case.

use std::cell::Cell;
use std::rc::Rc;

use super::*;

/// Counts what it is told.
#[derive(Debug, Default, Clone)]
struct Told {
    readable: Rc<Cell<usize>>,
    writable: Rc<Cell<usize>>,
}

impl Ends for Told {
    fn readable(&mut self) {
        self.readable.set(self.readable.get() + 1);
    }
    fn writable(&mut self) {
        self.writable.set(self.writable.get() + 1);
    }
}

fn link(side: Side, flow: Flow) -> (Link<Told>, Told, Instant) {
    let mut link = Link::new(side, flow);
    let told = Told::default();
    link.open(1, told.clone()).unwrap();
    (link, told, Instant::now())
}

fn data(connection: i64, bytes: usize) -> Packet {
    Packet::Data { connection, bytes: Bytes::from(vec![b'x'; bytes]) }
}

fn sent(link: &mut Link<Told>) -> Vec<Packet> {
    std::iter::from_fn(|| link.next(64 * 1024)).collect()
}

#[test]
fn a_close_of_the_server_goes_after_its_payload_and_lasts_until_it_is_answered() {
    let (mut link, told, now) = link(Side::Server, Flow::Buffered);
    link.push(1, Bytes::from_static(b"last words")).unwrap();
    link.close(1, String::new());
    assert_eq!(link.push(1, Bytes::from_static(b"more")), Err(Closed));
    // What still comes is dropped without a word.
    link.receive(data(1, 100), now).unwrap();
    let expected = [
        Packet::Data { connection: 1, bytes: Bytes::from_static(b"last words") },
        Packet::CloseRequest { connection: 1 },
    ];
    assert_eq!(sent(&mut link), expected);
    assert_eq!((link.len(), link.buffered_bytes(), told.readable.get()), (1, 0, 0));
    link.receive(Packet::CloseResponse { error: String::new(), connection: 1 }, now).unwrap();
    assert!(link.is_empty());
}

#[test]
fn what_breaks_off_is_told_with_its_reason_between_ends_of_ours() {
    let gone = || "the client has gone".to_owned();
    let (mut server, _, now) = link(Side::Server, Flow::Credit);
    let (mut agent, told, _) = link(Side::Agent, Flow::Credit);
    // Payload that waits for credit is not waited for.
    server.push(1, Bytes::from(vec![0; CREDIT_BYTES + 1])).unwrap();
    while server.next(64 * 1024).is_some_and(|p| matches!(p, Packet::Data { .. })) {}
    server.close(1, gone());
    let packets = sent(&mut server);
    assert_eq!(packets, [Packet::CloseResponse { error: gone(), connection: 1 }]);
    assert_eq!(agent.closed(1), None);
    packets.into_iter().for_each(|packet| agent.receive(packet, now).unwrap());
    assert_eq!((agent.closed(1), told.readable.get()), (Some("the client has gone"), 1));
    assert_eq!(agent.read(1, 100, now), Read::Closed(gone()));
    agent.close(1, String::new());
    let packets = sent(&mut agent);
    assert_eq!(packets, [Packet::CloseResponse { error: String::new(), connection: 1 }]);
    packets.into_iter().for_each(|packet| server.receive(packet, now).unwrap());
    assert!(server.is_empty() && agent.is_empty());
    // The wire has no word for it.
    let (mut server, _, _) = link(Side::Server, Flow::Buffered);
    server.close(1, gone());
    assert_eq!(sent(&mut server), [Packet::CloseRequest { connection: 1 }]);
}

#[test]
fn a_close_of_the_agent_is_read_after_the_payload() {
    let (mut link, told, now) = link(Side::Server, Flow::Buffered);
    link.receive(data(1, 10), now).unwrap();
    link.receive(Packet::CloseResponse { error: "why".to_owned(), connection: 1 }, now).unwrap();
    assert_eq!(link.room(1), Err(Closed));
    assert!(matches!(link.read(1, 100, now), Read::Bytes(bytes) if bytes.len() == 10));
    assert_eq!(link.read(1, 100, now), Read::Closed("why".to_owned()));
    link.close(1, String::new());
    assert!(link.is_empty() && sent(&mut link).is_empty() && told.writable.get() > 0);
}

#[test]
fn the_agent_writes_what_came_before_a_close_and_answers_it() {
    let (mut link, _, now) = link(Side::Agent, Flow::Buffered);
    link.receive(data(1, 10), now).unwrap();
    link.receive(Packet::CloseRequest { connection: 1 }, now).unwrap();
    assert!(matches!(link.read(1, 100, now), Read::Bytes(_)));
    assert_eq!(link.read(1, 100, now), Read::Closed(String::new()));
    link.close(1, String::new());
    let answer = Packet::CloseResponse { error: String::new(), connection: 1 };
    assert_eq!(sent(&mut link), [answer]);
    assert!(link.is_empty());
}

#[test]
fn who_is_not_known_is_told_so() {
    for (side, packet, expected) in [
        (Side::Server, data(9, 1), vec![Packet::CloseRequest { connection: 9 }]),
        (
            Side::Agent,
            data(9, 1),
            vec![Packet::CloseResponse { error: "unrecognized connectID".into(), connection: 9 }],
        ),
        (
            Side::Agent,
            Packet::CloseRequest { connection: 9 },
            vec![Packet::CloseResponse { error: "Unknown connectID".into(), connection: 9 }],
        ),
        (Side::Server, Packet::CloseResponse { error: String::new(), connection: 9 }, vec![]),
        (Side::Agent, Packet::Credit { connection: 9, bytes: 1 }, vec![]),
        (Side::Agent, Packet::Finish { connection: 9 }, vec![]),
    ] {
        let (mut link, _, now) = link(side, Flow::Buffered);
        link.receive(packet, now).unwrap();
        assert_eq!(sent(&mut link), expected);
    }
}

#[test]
fn each_direction_ends_by_itself_between_ends_of_ours() {
    let (mut link, _, now) = link(Side::Server, Flow::Credit);
    link.finish(1);
    assert_eq!(sent(&mut link), [Packet::Finish { connection: 1 }]);
    link.receive(data(1, 5), now).unwrap();
    link.receive(Packet::Finish { connection: 1 }, now).unwrap();
    assert!(matches!(link.read(1, 100, now), Read::Bytes(_)));
    assert_eq!(link.read(1, 100, now), Read::Finished);
    link.close(1, String::new());
    assert!(link.is_empty() && sent(&mut link).is_empty());
}

#[test]
fn nothing_is_sent_without_credit_and_others_go_on() {
    let (mut link, told, now) = link(Side::Server, Flow::Credit);
    link.open(2, Told::default()).unwrap();
    link.push(1, vec![0; CREDIT_BYTES + 10].into()).unwrap();
    assert_eq!(link.room(1), Ok(0));
    let first: usize = sent(&mut link).iter().map(payload).sum();
    assert_eq!((first, link.room(1)), (CREDIT_BYTES, Ok(OUTBOUND_BYTES_MAX - 10)));
    assert!(told.writable.get() > 0);
    link.push(2, Bytes::from_static(b"y")).unwrap();
    assert_eq!(sent(&mut link).iter().map(payload).sum::<usize>(), 1);
    link.receive(Packet::Credit { connection: 1, bytes: 7 }, now).unwrap();
    assert_eq!(sent(&mut link).iter().map(payload).sum::<usize>(), 7);
}

#[test]
fn an_end_that_waits_behind_payload_answers_a_close_that_comes_meanwhile() {
    let (mut link, _, now) = link(Side::Agent, Flow::Credit);
    link.push(1, vec![0; CREDIT_BYTES + 10].into()).unwrap();
    link.finish(1);
    link.receive(Packet::Finish { connection: 1 }, now).unwrap();
    link.close(1, String::new());
    assert_eq!(sent(&mut link).iter().map(payload).sum::<usize>(), CREDIT_BYTES);
    link.receive(Packet::CloseRequest { connection: 1 }, now).unwrap();
    let answer = Packet::CloseResponse { error: String::new(), connection: 1 };
    assert_eq!(sent(&mut link), [answer]);
    assert!(link.is_empty());
}

#[test]
fn a_close_does_not_wait_for_ever_for_who_takes_nothing() {
    let (mut link, _, now) = link(Side::Server, Flow::Credit);
    link.push(1, vec![0; CREDIT_BYTES + 10].into()).unwrap();
    link.close(1, String::new());
    assert_eq!(sent(&mut link).iter().map(payload).sum::<usize>(), CREDIT_BYTES);
    assert_eq!(link.close_lingering(), 0);
    link.receive(Packet::Credit { connection: 1, bytes: 3 }, now).unwrap();
    assert_eq!(sent(&mut link).iter().map(payload).sum::<usize>(), 3);
    // It took something meanwhile.
    assert_eq!(link.close_lingering(), 0);
    assert_eq!(link.close_lingering(), 1);
    let told = Packet::CloseResponse { error: UNTAKEN.to_owned(), connection: 1 };
    assert_eq!(sent(&mut link), [told]);
    link.check();
}

fn payload(packet: &Packet) -> usize {
    match packet {
        Packet::Data { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

#[test]
fn credit_is_given_back_as_three_quarters_of_it_are_taken() {
    let (mut link, _, now) = link(Side::Server, Flow::Credit);
    link.receive(data(1, CREDIT_BYTES), now).unwrap();
    assert_eq!(link.receive(data(1, 1), now), Err(LinkError::BeyondCredit(1)));
    let portion = CREDIT_BYTES / 4 * 3;
    assert!(matches!(link.read(1, portion - 1, now), Read::Bytes(_)));
    assert_eq!(sent(&mut link), []);
    assert!(matches!(link.read(1, 1, now), Read::Bytes(_)));
    assert_eq!(sent(&mut link), [Packet::Credit { connection: 1, bytes: portion as u64 }]);
}

#[test]
fn credit_follows_the_length_of_the_way() {
    let (mut link, _, start) = link(Side::Server, Flow::Credit);
    link.set_round_trip(Duration::from_millis(10));
    // So many quarters of the first credit arrive and are taken; how many that gives back.
    let quarter = CREDIT_BYTES / 4;
    let mut take = |quarters: usize, milliseconds: u64| -> u64 {
        let now = start + Duration::from_millis(milliseconds);
        link.receive(data(1, quarters * quarter), now).unwrap();
        let mut left = quarters * quarter;
        while let Read::Bytes(bytes) = link.read(1, left.max(1), now) {
            left -= bytes.len();
        }
        let packets = sent(&mut link);
        let bytes: u64 = packets
            .iter()
            .map(|p| if let Packet::Credit { bytes, .. } = p { *bytes } else { 0 })
            .sum();
        bytes / quarter as u64
    };
    assert_eq!(take(3, 0), 3);
    // Within two round trips: twice as much, and twice again.
    assert_eq!(take(3, 20), 3 + 4);
    assert_eq!(take(6, 40), 6 + 8);
    // Not that fast: it stays.
    assert_eq!(take(12, 61), 12);
    // Much more than the way needs: half of it is kept back, down to what each has.
    assert_eq!(take(12, 222), 12 - 8);
    assert_eq!(take(6, 383), 6 - 4);
    assert_eq!(take(3, 600), 3);
}

#[test]
fn an_original_is_held_up_only_as_long_as_the_connection_gets_on() {
    let (mut link, told, start) = link(Side::Server, Flow::Buffered);
    let later = |seconds| start + Duration::from_secs(seconds);
    link.receive(data(1, BUFFERED_BYTES_MAX), start).unwrap();
    assert!(!link.is_held_up());
    link.receive(data(1, 1), start).unwrap();
    assert!(link.is_held_up());
    // It takes a little in time.
    assert!(matches!(link.read(1, 1, later(1)), Read::Bytes(_)));
    assert_eq!(link.close_stalled(later(1)), 0);
    assert_eq!(link.close_stalled(later(2)), 1);
    assert!(!link.is_held_up() && link.buffered_bytes() == 0);
    assert!(matches!(link.read(1, 1, later(2)), Read::Closed(reason) if !reason.is_empty()));
    assert_eq!(sent(&mut link), [Packet::CloseRequest { connection: 1 }]);
    assert!(told.readable.get() > 2);
}

#[test]
fn a_reader_that_catches_up_lets_the_stream_go_on() {
    let (mut link, _, now) = link(Side::Agent, Flow::Buffered);
    link.receive(data(1, BUFFERED_BYTES_MAX + 1), now).unwrap();
    assert!(link.is_held_up());
    assert!(matches!(link.read(1, BUFFERED_BYTES_MAX / 2 + 1, now), Read::Bytes(_)));
    assert!(!link.is_held_up());
}

#[test]
fn the_end_of_the_stream_ends_every_connection_after_what_has_arrived() {
    let (mut link, told, now) = link(Side::Server, Flow::Credit);
    link.receive(data(1, 3), now).unwrap();
    link.push(1, Bytes::from_static(b"lost")).unwrap();
    link.end("gone");
    assert!(matches!(link.read(1, 9, now), Read::Bytes(_)));
    assert_eq!(link.read(1, 9, now), Read::Closed("gone".to_owned()));
    assert!(!link.has_next() || sent(&mut link).is_empty());
    assert_eq!(link.room(1), Err(Closed));
    assert!(told.writable.get() > 0);
    link.close(1, String::new());
    assert!(link.is_empty());
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let (mut link, _, now) = link(Side::Agent, Flow::Buffered);
    let mut answered = 0;
    while link.receive(data(9, 1), now).is_ok() {
        answered += 1;
        assert!(answered <= CONTROL_PACKETS_MAX);
    }
    assert_eq!(answered, CONTROL_PACKETS_MAX);
}

#[test]
fn credit_that_nobody_reads_is_bounded() {
    let (mut link, _, now) = link(Side::Agent, Flow::Credit);
    let payload = Bytes::from(vec![0; CREDIT_BYTES_MAX / 2]);
    let more = |link: &mut Link<Told>, bytes: usize| {
        let data = Packet::Data { connection: 1, bytes: payload.slice(..bytes) };
        let took = link.receive(data, now);
        while matches!(link.read(1, CREDIT_BYTES_MAX, now), Read::Bytes(_)) {}
        took
    };
    // Until its window has grown.
    for _ in 0..64 {
        more(&mut link, CREDIT_BYTES / 2).unwrap();
    }
    let go_on = |_| more(&mut link, CREDIT_BYTES_MAX / 2).err();
    let refused = (0..4 * CONTROL_PACKETS_MAX).find_map(go_on);
    assert_eq!(refused, Some(LinkError::NotReading));
    link.check();
}

#[test]
fn small_pieces_are_sent_together_and_large_ones_as_they_are() {
    let (mut link, _, _) = link(Side::Agent, Flow::Buffered);
    for _ in 0..10 {
        link.push(1, Bytes::from_static(b"0123456789")).unwrap();
    }
    link.push(1, vec![1; 100_000].into()).unwrap();
    let sizes: Vec<usize> = sent(&mut link).iter().map(payload).collect();
    assert_eq!(sizes, [16_384, 65_536, 100_100 - 16_384 - 65_536]);
}
