//! Every packet there and back, cut anywhere; what is not a packet; bytes as the original writes them.

use bytes::{Buf, Bytes};

use super::decode::{COLLECTED_BYTES_MAX, STREAMED_BYTES_MAX};
use super::fields::Malformed;
use super::*;

fn all() -> Vec<Packet> {
    let text = str::to_owned;
    vec![
        Packet::DialRequest { protocol: text("tcp"), address: text("a.test:443"), dial: i64::MIN },
        Packet::DialRequest { protocol: String::new(), address: String::new(), dial: 0 },
        Packet::DialResponse { error: String::new(), connection: 1, dial: -7 },
        Packet::DialResponse { error: text("dial tcp: refused"), connection: 0, dial: i64::MAX },
        Packet::CloseRequest { connection: 300 },
        Packet::CloseResponse { error: String::new(), connection: 2 },
        Packet::CloseResponse { error: text("é"), connection: i64::MAX },
        Packet::Data { connection: 1, bytes: Bytes::from_static(b"x") },
        Packet::Data { connection: -1, bytes: Bytes::from(vec![7; 70_000]) },
        Packet::Data { connection: 0, bytes: Bytes::from(vec![7; 200]) },
        Packet::CloseDial { dial: 5 },
        Packet::Drain,
        Packet::Credit { connection: 9, bytes: u64::MAX },
        Packet::Finish { connection: 9 },
    ]
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut message = Message::new(packet);
    message.copy_to_bytes(message.remaining()).to_vec()
}

/// All packets of a stream that arrives in pieces; DATA put together again.
fn decoded(stream: &[u8], piece: usize) -> Result<Vec<Packet>, DecodeError> {
    let mut decoder = Decoder::default();
    let mut found: Vec<Packet> = Vec::new();
    for chunk in stream.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(packet) = decoder.next_packet()? {
            match (found.last_mut(), packet) {
                (
                    Some(Packet::Data { connection: before, bytes: first }),
                    Packet::Data { connection, bytes },
                ) if *before == connection => *first = [&first[..], &bytes[..]].concat().into(),
                (_, packet) => found.push(packet),
            }
        }
    }
    assert_eq!(decoder.queued(), 0);
    Ok(found)
}

#[test]
fn every_packet_survives_any_cut() {
    let stream: Vec<u8> = all().iter().flat_map(bytes_of).collect();
    for piece in [1, 2, 3, 5, 7, 64, 1000, 16_384, stream.len()] {
        assert_eq!(decoded(&stream, piece).unwrap(), all(), "in pieces of {piece}");
    }
}

#[test]
fn bytes_are_those_of_the_original() {
    // Made by the original's own library.
    let request = b"\0\0\0\0\x13\x12\x11\x0a\x03tcp\x12\x08h:123456\x18\x05";
    let packet =
        Packet::DialRequest { protocol: "tcp".to_owned(), address: "h:123456".to_owned(), dial: 5 };
    assert_eq!(bytes_of(&packet), request);
    let data = b"\0\0\0\0\x0b\x08\x04\x22\x07\x08\x01\x1a\x03abc";
    assert_eq!(bytes_of(&Packet::Data { connection: 1, bytes: Bytes::from_static(b"abc") }), data);
    let drain = b"\0\0\0\0\x04\x08\x06\x42\x00";
    assert_eq!(bytes_of(&Packet::Drain), drain);
}

#[test]
fn a_message_is_the_same_in_one_piece_and_in_slices() {
    const BYTES_MAX: usize = 1000;
    for packet in all() {
        let whole = bytes_of(&packet);
        if whole.len() > BYTES_MAX {
            continue;
        }
        for step in [1, 3, 39, 1000] {
            let mut message = Message::new(&packet);
            let mut seen = Vec::new();
            while message.has_remaining() {
                let mut slices = [std::io::IoSlice::new(&[]); 4];
                let count = message.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                assert_eq!(all.len(), message.remaining());
                let step = step.min(all.len());
                seen.extend_from_slice(&all[..step]);
                message.advance(step);
            }
            assert_eq!(seen, whole);
        }
    }
}

#[test]
fn a_message_that_is_cut_anywhere_is_the_same() {
    use http2::Payload;
    let packets =
        [Packet::Data { connection: 77, bytes: b"some payload"[..].into() }, Packet::Drain];
    for packet in packets {
        let whole = bytes_of(&packet);
        for cut in 0..=whole.len() {
            let mut rest = Message::new(&packet);
            let mut first = rest.split_to(cut);
            assert_eq!((first.remaining(), rest.remaining()), (cut, whole.len() - cut));
            let both = [first.copy_to_bytes(cut), rest.copy_to_bytes(whole.len() - cut)].concat();
            assert_eq!(both, whole, "{cut}");
        }
    }
}

fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), content].concat()
}

#[test]
fn unusual_but_valid_messages_are_understood() {
    let data = Packet::Data { connection: 1, bytes: Bytes::from_static(b"abc") };
    for (content, expected) in [
        // Payload before connection; content before type; the unused error between; an unknown field.
        (&b"\x08\x04\x22\x07\x1a\x03abc\x08\x01"[..], Some(data.clone())),
        (b"\x22\x07\x08\x01\x1a\x03abc\x08\x04", Some(data.clone())),
        (b"\x08\x04\x22\x0a\x08\x01\x12\x01e\x1a\x03abc", Some(data.clone())),
        (b"\x08\x04\x22\x07\x08\x01\x1a\x03abc\xf8\x06\x01", Some(data.clone())),
        (b"\x08\x04\x22\x02\x08\x01\x22\x05\x1a\x03abc", Some(data)),
        // No payload, a type that nobody knows, nothing at all but the default type.
        (b"\x08\x04\x22\x02\x08\x01", None),
        (b"\x08\x04\x22\x04\x08\x01\x1a\x00", None),
        (b"\x08\x63", None),
        (b"\x08\x06", Some(Packet::Drain)),
        (
            b"",
            Some(Packet::DialRequest { protocol: String::new(), address: String::new(), dial: 0 }),
        ),
    ] {
        let stream = message(content);
        for piece in [1, stream.len()] {
            let found = decoded(&stream, piece).unwrap();
            assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>(), "{content:?}");
        }
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    let malformed = |reason| Err(DecodeError::Malformed(reason));
    for (stream, expected) in [
        (message(b"\x08"), malformed(Malformed::Cut)),
        (message(b"\x12\x7f"), malformed(Malformed::Cut)),
        (message(b"\x00\x01"), malformed(Malformed::Tag)),
        (message(b"\x0f"), malformed(Malformed::Tag)),
        (
            message(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
            malformed(Malformed::LongNumber),
        ),
        (message(b"\x12\x03\x12\x01\xff"), malformed(Malformed::Text)),
        (b"\x01\0\0\0\0".to_vec(), Err(DecodeError::Compressed)),
    ] {
        assert_eq!(decoded(&stream, stream.len()), expected, "{stream:?}");
    }
}

#[test]
fn what_would_have_to_be_collected_is_bounded() {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    for (bytes, begin, most) in [
        (STREAMED_BYTES_MAX + 1, &b""[..], STREAMED_BYTES_MAX),
        // DATA in an unusual order, then a request to dial.
        (
            COLLECTED_BYTES_MAX + 1,
            &[8, 4, 0x22, 0x80, 0x80, 0x80, 2, 0x1a, 0][..],
            COLLECTED_BYTES_MAX,
        ),
        (64 * 1024 + 1, &[0x12, 0x80, 0x80, 4, 0x12, 0x80, 0x80, 4][..], 64 * 1024),
    ] {
        let mut decoder = Decoder::default();
        decoder.push([&[0][..], &length(bytes), begin, &[b'x'; 64]].concat().into());
        assert_eq!(decoder.next_packet(), Err(DecodeError::TooLong { bytes, most }));
    }
}

#[test]
fn payload_is_not_copied() {
    let payload = Bytes::from(vec![1; 100_000]);
    let mut message = Message::data(7, payload.clone());
    message.advance(message.chunk().len());
    assert_eq!(message.chunk().as_ptr(), payload.as_ptr());
    let stream = Bytes::from(bytes_of(&Packet::Data { connection: 7, bytes: payload }));
    let mut decoder = Decoder::default();
    decoder.push(stream.slice(..50_000));
    let Ok(Some(Packet::Data { bytes, .. })) = decoder.next_packet() else { panic!() };
    assert!(stream.as_ptr_range().contains(&bytes.as_ptr()));
    assert_eq!(decoder.next_packet(), Ok(None));
}
