//! What a client may do wrong, and what it may not make us do.

use bytes::Bytes;

use super::receive::USELESS_FRAMES_MAX;
use super::*;
use crate::Block;
use crate::frame::{FrameHead, HEAD_BYTES, PREFACE, flag, kind, put, setting};
use crate::fuzzing::{self, Fuzzed as Tested};
use crate::hpack::put_field;
use crate::simulation::LIMITS;

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_settings(&mut out, pairs);
    out
}

/// A connection whose client has said hello.
fn open_with(limits: Limits, pairs: &[(u16, u32)]) -> Tested {
    let mut core = Core::new(limits);
    core.receive(&[PREFACE, &settings(pairs)].concat());
    assert!(core.is_open() && core.error().is_none());
    written(&mut core);
    core
}

fn open() -> Tested {
    open_with(LIMITS, &[])
}

fn one(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, kind, flags, stream, payload);
    out
}

fn request_block() -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/a")] {
        put_field(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    one(kind::HEADERS, flags | flag::END_HEADERS, stream, &request_block())
}

/// Everything that is to be written, as frames.
fn written(core: &mut Tested) -> Vec<(FrameHead, Vec<u8>)> {
    let all = fuzzing::written(core);
    let (mut frames, mut rest) = (Vec::new(), &all[..]);
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let head = FrameHead::read(*head);
        let (payload, after) = after.split_at(head.length as usize);
        frames.push((head, payload.to_vec()));
        rest = after;
    }
    frames
}

fn kinds(frames: &[(FrameHead, Vec<u8>)]) -> Vec<(u8, u32)> {
    frames.iter().map(|(head, _)| (head.kind, head.stream)).collect()
}

/// The code of the reset of a stream, or of the connection's end for 0.
fn reason_for(core: &mut Tested, stream: u32) -> Option<u32> {
    let (kind, from) = if stream == 0 { (kind::GOAWAY, 4) } else { (kind::RST_STREAM, 0) };
    let frames = written(core);
    let (_, payload) = frames.iter().find(|(h, _)| (h.kind, h.stream) == (kind, stream))?;
    Some(u32::from_be_bytes(payload[from..].try_into().unwrap()))
}

fn broken_with(mut core: Tested, bytes: &[u8], reason: Reason) {
    core.receive(bytes);
    core.check();
    assert!(matches!(core.error(), Some(Error::Broken(..))), "{bytes:?}");
    assert_eq!(reason_for(&mut core, 0), Some(reason.code()), "{:?}", core.error());
    // Nothing more is taken.
    assert!(!core.takes_input());
}

fn stream_reset_with(mut core: Tested, bytes: &[u8], stream: u32, reason: Reason) {
    core.receive(bytes);
    core.check();
    assert_eq!(core.error(), None, "{bytes:?}");
    assert_eq!(reason_for(&mut core, stream), Some(reason.code()), "{bytes:?}");
    // The others go on.
    core.receive(&request(101, 0));
    assert_eq!(std::iter::from_fn(|| core.accept()).last().unwrap().0, 101);
}

/// With a call on stream 1 that is being served.
fn called() -> Tested {
    let mut core = open();
    core.receive(&request(1, 0));
    assert_eq!(core.accept().unwrap().1.path(), b"/a");
    core
}

#[test]
fn the_greeting_is_one_piece_and_answers_wait_for_company() {
    let mut core: Tested = Core::new(LIMITS);
    for byte in [PREFACE, &settings(&[])].concat() {
        assert_eq!((core.urgency(), core.is_open()), (None, false));
        core.receive(&[byte]);
    }
    assert_eq!((core.urgency(), core.is_open()), (Some(Urgency::Now), true));
    let frames = written(&mut core);
    assert_eq!(
        kinds(&frames),
        [(kind::SETTINGS, 0), (kind::WINDOW_UPDATE, 0), (kind::SETTINGS, 0)]
    );
    assert!(frames[2].0.has(flag::ACK) && frames[1].1 == (300_000_u32 - 65_535).to_be_bytes());
    core.receive(&one(kind::PING, 0, 0, b"12345678"));
    core.receive(&settings(&[]));
    assert_eq!(core.urgency(), Some(Urgency::Held));
    core.receive(&request(1, 0));
    core.accept().unwrap();
    core.send_head(1, Block::answer(200), false).unwrap();
    assert_eq!(core.urgency(), Some(Urgency::Held));
    core.send_data(1, Bytes::from_static(b"x")).unwrap();
    core.send_end(1, Some(Block::trailers().field("a", b"b"))).unwrap();
    assert_eq!(core.urgency(), Some(Urgency::Now));
    let frames = written(&mut core);
    let ends = (kind::HEADERS, 1);
    let data = (kind::DATA, 1);
    assert_eq!(kinds(&frames), [(kind::PING, 0), (kind::SETTINGS, 0), ends, data, ends]);
    assert_eq!(core.urgency(), None);
}

#[test]
fn a_head_alone_waits_the_longest_unless_it_is_flushed_or_the_end() {
    let mut core = called();
    core.send_head(1, Block::answer(200), false).unwrap();
    assert_eq!(core.urgency(), Some(Urgency::Held));
    core.flush(1);
    assert_eq!(core.urgency(), Some(Urgency::Now));
    assert_eq!(kinds(&written(&mut core)), [(kind::HEADERS, 1)]);
    let mut core = called();
    core.send_head(1, Block::answer(404), true).unwrap();
    let frames = written(&mut core);
    assert!(frames.len() == 1 && frames[0].0.has(flag::END_STREAM));
    assert_eq!(core.send_data(1, Bytes::new()), Err(Error::Order));
    // Who has not heard all is told that nobody listens.
    core.close_writer(1);
    core.close_reader(1);
    assert_eq!(reason_for(&mut core, 1), Some(Reason::NO_ERROR.code()));
    assert!(core.streams.is_empty());
}

#[test]
fn what_breaks_the_connection() {
    use Reason as R;
    let hello = |bytes: &[u8]| [PREFACE, bytes].concat();
    broken_with(Core::new(LIMITS), b"GET / HTTP/1.1\r\n", R::PROTOCOL_ERROR);
    broken_with(Core::new(LIMITS), &hello(&one(kind::PING, 0, 0, &[0; 8])), R::PROTOCOL_ERROR);
    broken_with(Core::new(LIMITS), &hello(&one(kind::SETTINGS, 1, 0, &[])), R::PROTOCOL_ERROR);
    let idle = [
        one(kind::DATA, 0, 7, b"x"),
        one(kind::RST_STREAM, 0, 7, &[0; 4]),
        one(kind::WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1]),
        one(kind::DATA, 0, 0, b"x"),
        one(kind::RST_STREAM, 0, 0, &[0; 4]),
        one(kind::HEADERS, flag::END_HEADERS, 0, &request_block()),
        one(kind::HEADERS, flag::END_HEADERS, 2, &request_block()),
        one(kind::PRIORITY, 0, 0, &[0; 5]),
        one(kind::SETTINGS, 0, 1, &[]),
        one(kind::PING, 0, 1, &[0; 8]),
        one(kind::GOAWAY, 0, 1, &[0; 8]),
        one(5, flag::END_HEADERS, 1, &[0; 8]),
        one(kind::CONTINUATION, flag::END_HEADERS, 1, &[]),
        one(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
        settings(&[(setting::ENABLE_PUSH, 2)]),
        settings(&[(setting::MAX_FRAME_SIZE, 16_383)]),
        settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]),
        one(kind::DATA, flag::PADDED, 1, &[2, 0]),
        one(kind::HEADERS, flag::END_HEADERS | flag::PADDED, 3, &[2, 0]),
        [one(kind::HEADERS, 0, 3, &[]), one(kind::PING, 0, 0, &[0; 8])].concat(),
        [one(kind::HEADERS, 0, 3, &[]), one(kind::CONTINUATION, 0, 5, &[])].concat(),
    ];
    idle.iter().for_each(|bytes| broken_with(called(), bytes, R::PROTOCOL_ERROR));
    for bytes in [
        one(kind::PING, 0, 0, &[0; 7]),
        one(kind::SETTINGS, 0, 0, &[0; 5]),
        one(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
        one(kind::RST_STREAM, 0, 1, &[0; 3]),
        one(kind::WINDOW_UPDATE, 0, 1, &[0; 5]),
        one(kind::GOAWAY, 0, 0, &[0; 7]),
        one(kind::DATA, flag::PADDED, 1, &[]),
        one(kind::HEADERS, flag::PADDED, 3, &[]),
        one(kind::HEADERS, flag::PRIORITY, 3, &[0; 4]),
        one(kind::DATA, 0, 1, &[0; 20_001]),
    ] {
        broken_with(called(), &bytes, R::FRAME_SIZE_ERROR);
    }
    let window = settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]);
    broken_with(called(), &window, R::FLOW_CONTROL_ERROR);
    let over = one(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]);
    broken_with(called(), &over, R::FLOW_CONTROL_ERROR);
    let bad = one(kind::HEADERS, flag::END_HEADERS, 3, &[0x80]);
    broken_with(called(), &bad, R::COMPRESSION_ERROR);
    // A stream that has ended begins no other.
    let mut core = called();
    core.receive(&one(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    core.close_reader(1);
    core.close_writer(1);
    broken_with(core, &request(1, 0), R::STREAM_CLOSED);
}

#[test]
fn what_ends_a_stream_alone() {
    use Reason as R;
    let ended = || {
        let mut core = called();
        core.receive(&one(kind::DATA, flag::END_STREAM, 1, b"x"));
        core
    };
    stream_reset_with(ended(), &one(kind::DATA, 0, 1, b"x"), 1, R::STREAM_CLOSED);
    stream_reset_with(ended(), &request(1, flag::END_STREAM), 1, R::STREAM_CLOSED);
    // Trailers end a call.
    stream_reset_with(called(), &request(1, 0), 1, R::PROTOCOL_ERROR);
    let zero = one(kind::WINDOW_UPDATE, 0, 1, &[0; 4]);
    stream_reset_with(called(), &zero, 1, R::PROTOCOL_ERROR);
    let over = one(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]);
    stream_reset_with(called(), &over, 1, R::FLOW_CONTROL_ERROR);
    let own = one(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0]);
    stream_reset_with(called(), &own, 1, R::PROTOCOL_ERROR);
    stream_reset_with(called(), &one(kind::PRIORITY, 0, 1, &[0; 4]), 1, R::FRAME_SIZE_ERROR);
    let mut block = request_block();
    put_field(&mut block, b"content-length", b"3");
    let flags = flag::END_HEADERS;
    let declared = one(kind::HEADERS, flags, 3, &block);
    for data in [one(kind::DATA, 0, 3, b"1234"), one(kind::DATA, flag::END_STREAM, 3, b"12")] {
        stream_reset_with(called(), &[&declared[..], &data].concat(), 3, R::PROTOCOL_ERROR);
    }
    let all = one(kind::HEADERS, flags | flag::END_STREAM, 3, &block);
    stream_reset_with(called(), &all, 3, R::PROTOCOL_ERROR);
    put_field(&mut block, b"connection", b"close");
    stream_reset_with(called(), &one(kind::HEADERS, flags, 3, &block), 3, R::PROTOCOL_ERROR);
}

#[test]
fn payload_comes_in_any_pieces_and_is_padded() {
    let data = one(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x03payload\0\0\0");
    for piece in [1, 3, 1000] {
        let mut core = called();
        data.chunks(piece).for_each(|bytes| core.receive(bytes));
        core.check();
        assert!(core.partial.capacity() == 0);
        let mut seen = Vec::new();
        let end = loop {
            match core.read(1) {
                Read::Bytes(bytes) => seen.extend(bytes),
                other => break other,
            }
        };
        assert!(matches!(end, Read::End(None)) && seen == b"payload");
        core.release(1, 7);
        core.check();
        assert_eq!(core.streams[&1].held, 0);
    }
}

#[test]
fn windows_are_kept_in_both_directions() {
    let mut core = open_with(LIMITS, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    core.receive(&request(1, 0));
    core.accept().unwrap();
    core.send_head(1, Block::answer(200), false).unwrap();
    // A frame beyond the window may be given.
    assert_eq!(core.capacity(1), 16_384);
    core.send_data(1, Bytes::from(vec![7; 1000])).unwrap();
    let sent = |core: &mut Tested| -> usize {
        core.check();
        let frames = written(core);
        let data = frames.iter().filter(|(head, _)| head.kind == kind::DATA);
        data.map(|(_, payload)| payload.len()).sum()
    };
    assert_eq!(sent(&mut core), 10);
    // It becomes negative, and positive again.
    core.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    core.receive(&one(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 10]));
    assert_eq!(sent(&mut core), 0);
    core.receive(&one(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 5]));
    assert_eq!(sent(&mut core), 5);
    core.receive(&settings(&[(setting::INITIAL_WINDOW_SIZE, 100)]));
    assert_eq!(sent(&mut core), 100);
    // More than ours.
    for bytes in [one(kind::DATA, 0, 1, &[0; 20_000]).repeat(6), vec![]] {
        core.receive(&bytes);
    }
    assert!(matches!(core.error(), Some(Error::Broken(Reason::FLOW_CONTROL_ERROR, _))));
    let many = |stream| one(kind::DATA, 0, stream, &[0; 20_000]).repeat(5);
    let mut core = open();
    for stream in [1, 3, 5, 7] {
        core.receive(&[request(stream, 0), many(stream)].concat());
    }
    assert!(matches!(core.error(), Some(Error::Broken(Reason::FLOW_CONTROL_ERROR, _))));
}

#[test]
fn streams_take_turns_and_wait_for_the_connections_window_together() {
    let mut core = open();
    for stream in [1, 3, 5] {
        core.receive(&request(stream, 0));
        core.accept().unwrap();
        core.send_head(stream, Block::answer(200), false).unwrap();
        core.send_data(stream, Bytes::from(vec![0; 30_000])).unwrap();
    }
    let data = |core: &mut Tested| -> Vec<_> {
        core.check();
        let frames = written(core);
        let data = frames.iter().filter(|(head, _)| head.kind == kind::DATA);
        data.map(|(head, payload)| (head.stream, payload.len())).collect()
    };
    let first = [(1, 16_384), (3, 16_384), (5, 16_384), (1, 13_616), (3, 2767)];
    assert_eq!(data(&mut core), first);
    assert_eq!(core.urgency(), None);
    core.receive(&one(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 7]));
    assert_eq!(data(&mut core), [(5, 7)]);
    core.receive(&one(kind::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]));
    assert_eq!(data(&mut core), [(3, 10_849), (5, 13_609)]);
}

#[test]
fn what_waits_for_windows_is_bounded_for_all_streams_together() {
    let limits = Limits { streams_max: 4096, ..LIMITS };
    let mut core = open_with(limits, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    for id in (1..8192).step_by(2) {
        core.receive(&request(id, 0));
        core.accept().unwrap();
        core.send_head(id, Block::answer(200), false).unwrap();
        let room = core.capacity(id);
        // None is left without any.
        assert!(room >= BEYOND_BYTES_MIN);
        core.send_data(id, Bytes::from(vec![0; room])).unwrap();
        assert_eq!(core.capacity(id), 0);
    }
    assert!(
        core.queued <= QUEUED_BYTES_MAX + FRAME_BYTES_DEFAULT as usize + 4096 * BEYOND_BYTES_MIN
    );
    core.check();
}

/// So many requests that are reset at once, none of which anybody has seen.
#[test]
fn a_flood_of_resets_ends_the_connection() {
    let reset = |stream| one(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let mut core = open();
    for stream in (1..2000).step_by(2) {
        core.receive(&[request(stream, 0), reset(stream)].concat());
        core.check();
    }
    assert_eq!(reason_for(&mut core, 0), Some(Reason::ENHANCE_YOUR_CALM.code()));
    assert!(core.streams.is_empty() && core.calls.is_empty());
    // One whose calls are seen may give up as many as it likes.
    let mut core = open();
    for stream in (1..2000).step_by(2) {
        core.receive(&request(stream, 0));
        let (id, _) = core.accept().unwrap();
        core.receive(&reset(stream));
        core.close_reader(id);
        core.close_writer(id);
        core.check();
    }
    assert_eq!((core.error(), core.streams.len()), (None, 0));
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let mut core = open();
    (1..=201).step_by(2).for_each(|stream| core.receive(&request(stream, 0)));
    core.check();
    assert_eq!((core.streams.len(), core.calls.len()), (100, 100));
    assert_eq!(reason_for(&mut core, 201), Some(Reason::REFUSED_STREAM.code()));
    assert_eq!(core.error(), None);
}

#[test]
fn header_fields_without_end_end_the_connection() {
    let begin = one(kind::HEADERS, 0, 1, &request_block());
    for payload in [&[][..], &[0; 5000]] {
        let flood = one(kind::CONTINUATION, 0, 1, payload).repeat(100);
        broken_with(open(), &[&begin[..], &flood].concat(), Reason::ENHANCE_YOUR_CALM);
    }
    broken_with(open(), &one(kind::HEADERS, 0, 1, &[0; 11_000]), Reason::ENHANCE_YOUR_CALM);
    // A list that is short on the wire and long when it is read: the same field of the table again and again.
    let mut block = request_block();
    block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x17]);
    block.extend([b'v'; 3104]);
    block.extend([0xbe; 5000]);
    let bomb = one(kind::HEADERS, flag::END_HEADERS, 1, &block);
    stream_reset_with(open(), &bomb, 1, Reason::ENHANCE_YOUR_CALM);
}

#[test]
fn frames_that_bring_nothing_are_bounded() {
    let setting = |n: u32| settings(&[(setting::INITIAL_WINDOW_SIZE, n)]);
    for useless in [
        one(kind::DATA, 0, 1, &[]),
        one(kind::PRIORITY, 0, 1, &[0; 5]),
        one(77, 0, 1, b"x"),
        one(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        one(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        one(kind::SETTINGS, flag::ACK, 0, &[]),
        one(kind::PING, flag::ACK, 0, &[0; 8]),
        one(kind::GOAWAY, 0, 0, &[0; 8]),
        [setting(0), setting(1)].concat(),
    ] {
        let flood = useless.repeat(USELESS_FRAMES_MAX as usize + 1);
        broken_with(called(), &flood, Reason::ENHANCE_YOUR_CALM);
    }
}

/// Who asks and does not read the answers is not heard any more.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    for asked in [one(kind::PING, 0, 0, &[0; 8]), settings(&[]), request(1, 0)] {
        let mut core = open();
        let mut received = 0;
        while core.takes_input() && received < 100_000 {
            core.receive(&asked);
            if asked[3] == kind::HEADERS {
                core.reset(1, Reason::CANCEL);
                core.accept();
            }
            received += 1;
        }
        assert!(core.error().is_some() || !core.takes_input());
        assert!(core.control.len() < CONTROL_BYTES_MAX + 100, "{}", core.control.len());
        if core.error().is_none() {
            written(&mut core);
            assert!(core.takes_input());
        }
    }
}

#[test]
fn small_frames_hold_little_more_than_they_bring() {
    let mut core = called();
    core.receive(&one(kind::DATA, 0, 1, b"x").repeat(50_000));
    let stream = &core.streams[&1];
    let held: usize = stream.incoming.iter().map(BytesMut::capacity).sum();
    assert!(held < 150_000 && stream.incoming.len() < 20, "{held} {}", stream.incoming.len());
    core.check();
}

#[test]
fn what_comes_for_a_stream_that_we_have_reset_is_passed_over() {
    let mut core = called();
    core.receive(&one(kind::DATA, 0, 1, &[0; 100]));
    core.reset(1, Reason::CANCEL);
    core.close_reader(1);
    core.close_writer(1);
    assert_eq!(kinds(&written(&mut core)), [(kind::RST_STREAM, 1)]);
    for bytes in [
        one(kind::DATA, 0, 1, &[0; 1000]),
        one(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        request(1, flag::END_STREAM),
        one(kind::RST_STREAM, 0, 1, &[0; 4]),
    ] {
        core.receive(&bytes);
        core.check();
    }
    assert_eq!((core.error(), kinds(&written(&mut core))), (None, vec![]));
}

#[test]
fn nothing_of_a_stream_follows_its_reset() {
    let mut core = called();
    core.send_head(1, Block::answer(200), false).unwrap();
    core.send_data(1, Bytes::from_static(b"x")).unwrap();
    core.send_end(1, None).unwrap();
    core.reset(1, Reason::CANCEL);
    assert_eq!(kinds(&written(&mut core)), [(kind::HEADERS, 1), (kind::RST_STREAM, 1)]);
}

#[test]
fn what_a_client_sends_on_a_stream_that_it_has_reset_is_refused_once() {
    for late in [one(kind::DATA, 0, 1, b"x"), request(1, flag::END_STREAM)] {
        let mut core = called();
        core.receive(&[one(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), late].concat());
        assert_eq!(reason_for(&mut core, 1), Some(Reason::STREAM_CLOSED.code()));
        core.check();
    }
}

#[test]
fn a_connection_is_shut_down_when_its_calls_have_ended() {
    let mut core = called();
    core.shut_down();
    assert_eq!(reason_for(&mut core, 0), Some(Reason::NO_ERROR.code()));
    core.receive(&request(3, 0));
    assert!(core.accept().is_none() && !core.is_finished());
    core.send_head(1, Block::answer(200), true).unwrap();
    core.receive(&one(kind::DATA, flag::END_STREAM, 1, &[]));
    core.close_reader(1);
    core.close_writer(1);
    written(&mut core);
    assert!(core.is_finished());
}

#[test]
fn what_is_over_is_told_to_who_serves_it() {
    let mut core = called();
    core.receive(&one(kind::DATA, 0, 1, b"first"));
    core.receive(&one(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    assert_eq!(core.over(1), Some(Error::Reset(Reason::CANCEL)));
    assert_eq!(core.send_data(1, Bytes::new()), Err(Error::Reset(Reason::CANCEL)));
    // What had come before is still given out.
    assert!(matches!(core.read(1), Read::Bytes(bytes) if bytes == "first"));
    assert!(matches!(core.read(1), Read::Failed(Error::Reset(Reason::CANCEL))));
    let mut core = called();
    core.fail(Error::Closed);
    assert_eq!((core.over(1), core.capacity(1)), (Some(Error::Closed), 0));
    assert!(matches!(core.read(1), Read::Failed(Error::Closed)));
}

#[test]
fn a_client_is_asked_whether_it_lives() {
    let mut core = open();
    core.ask();
    let frames = written(&mut core);
    assert_eq!(kinds(&frames), [(kind::PING, 0)]);
    assert!(!core.was_answered());
    core.receive(&one(kind::PING, flag::ACK, 0, &frames[0].1));
    assert!(core.was_answered() && core.urgency().is_none());
}
