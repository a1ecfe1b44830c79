//! What the fuzz targets of the mesh check, and ordinary tests with their corpora: nothing panics, and what is read is
//! the same however it is cut.

use std::path::Path;

use crate::files::{hosts, mappings, settings};
use crate::frames::{BEHIND_BYTES_MAX, Reader, Taken};
use crate::peer::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, read_reply, read_request};

/// The three files: what is read and written again is the same.
///
/// # Panics
/// Where it is not.
pub fn files(text: &str) {
    let file = "f".into();
    let (read, _) = mappings::parse(&file, text);
    let item = |m: &mappings::Mapping| {
        format!("{}:{}:{}:{}\n", m.cluster_port, m.host_port, m.connections_max, m.wants_header)
    };
    let written: String = read.iter().map(item).collect();
    let (again, found) = mappings::parse(&file, &written);
    assert_eq!(again, read);
    assert!(!found.has_errors());
    let (read, _) = hosts::parse(&file, text);
    let written: String = read.iter().map(|host| format!("{host}\n")).collect();
    assert_eq!(hosts::parse(&file, &written).0, read);
    let _ = settings::parse(&file, Path::new("/"), text);
}

/// Questions and answers of hosts: no beginning of one is anything.
///
/// # Panics
/// Where one is.
pub fn peer(data: &[u8]) {
    if let Ok(Some((request, length))) = read_request(data) {
        assert!(request.cluster_port > 0 && length <= REQUEST_BYTES_MAX);
        assert!((0..length).all(|cut| read_request(&data[..cut]) == Ok(None)));
        assert_eq!(read_request(&data[..length]), Ok(Some((request, length))));
        let written = request.encode();
        assert_eq!(read_request(&written), Ok(Some((request, written.len()))));
    } else if data.len() >= REQUEST_BYTES_MAX {
        assert!(read_request(data).is_err());
    }
    if let Ok(Some((reply, length))) = read_reply(data) {
        assert_eq!(reply.encode(), &data[..length]);
    } else if data.len() >= REPLY_BYTES_MAX {
        assert!(read_reply(data).is_err());
    }
}

/// Frames: whole, byte by byte, and in pieces whose lengths the data says.
///
/// # Panics
/// Where the payload or the end depends on it.
pub fn frames(data: &[u8]) {
    let Some((&pieces, stream)) = data.split_first() else { return };
    let whole = read(stream, usize::MAX);
    for piece in [1, usize::from(pieces).max(1)] {
        let cut = read(stream, piece);
        match (&whole, &cut) {
            (Ok(one), Ok(other)) => assert_eq!(one, other),
            // What is too much behind the end is seen only where it comes at once.
            (Err(_), Ok(cut)) => assert!(cut.behind.len() > BEHIND_BYTES_MAX),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => panic!("{error} by {piece}, and none at once"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Streamed {
    payload: Vec<u8>,
    behind: Vec<u8>,
    ends: (bool, bool),
}

fn read(stream: &[u8], piece: usize) -> Result<Streamed, crate::frames::Malformed> {
    let mut reader = Reader::default();
    let (mut all, mut behind) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece.min(stream.len()).max(1)) {
        let mut piece = piece.to_vec();
        let Taken { payload, used } = reader.take(&mut piece)?;
        assert!(payload <= used && (used == piece.len() || reader.has_ended()));
        all.extend_from_slice(&piece[..payload]);
        behind.extend_from_slice(&piece[used..]);
    }
    Ok(Streamed { payload: all, behind, ends: (reader.has_ended(), reader.is_raw()) })
}

#[cfg(test)]
mod replay {
    use balance::Rng;
    use testkit::corpus::{File, replay};

    fn below(rng: &mut Rng, bound: usize) -> usize {
        usize::try_from(rng.below(bound as u64)).unwrap()
    }

    /// Two of the corpus put together somewhere, and bytes of it changed.
    fn mutate(seed: u64, corpus: &[File]) -> Vec<u8> {
        let rng = &mut Rng::new(seed);
        let mut bytes = corpus[below(rng, corpus.len())].1.clone();
        for _ in 0..=below(rng, 4) {
            let at = below(rng, bytes.len() + 1);
            let end = (at + below(rng, 9)).min(bytes.len());
            match below(rng, 4) {
                0 => drop(bytes.drain(at..end)),
                1 => drop(bytes.splice(at..end.min(at + 1), [rng.next_u64() as u8])),
                2 => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let other = &corpus[below(rng, corpus.len())].1;
                    bytes.splice(at..at, other.iter().copied());
                }
            }
        }
        bytes
    }

    #[test]
    fn peers() {
        replay("mesh_peer", 20_000, mutate, super::peer);
    }

    #[test]
    fn framed() {
        replay("mesh_frames", 20_000, mutate, super::frames);
    }

    #[test]
    fn configuration() {
        replay("mesh_files", 5_000, mutate, |bytes| super::files(&String::from_utf8_lossy(bytes)));
    }
}
