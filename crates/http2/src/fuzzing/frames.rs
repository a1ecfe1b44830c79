//! A client's bytes: the same calls, payload and answers, however they are cut.

use super::{Fuzzed, LIMITS, written};
use crate::frame::{PREFACE, kind, put};
use crate::{Core, Error, Read};

/// Bytes of one input that are looked at.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// What a client's bytes have come to.
#[derive(Debug, PartialEq)]
struct Outcome {
    error: Option<Error>,
    answered: Vec<u8>,
    calls: Vec<Called>,
}

#[derive(Debug, PartialEq)]
struct Called {
    id: u32,
    /// As text that shows each byte.
    fields: String,
    payload: Vec<u8>,
    end: String,
}

/// Reads the bytes as what follows a client's preface and settings.
///
/// # Panics
/// Where it matters how they are cut, or a bound is not kept: that is its purpose.
pub fn frames(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    let whole = outcome(data, data.len().max(1));
    for piece in [1, 7, 1000] {
        assert_eq!(outcome(data, piece), whole, "in pieces of {piece}: {}", data.escape_ascii());
    }
}

fn outcome(data: &[u8], piece: usize) -> Outcome {
    let mut core: Fuzzed = Core::new(LIMITS);
    let mut hello = PREFACE.to_vec();
    put(&mut hello, kind::SETTINGS, 0, 0, &[]);
    core.receive(&hello);
    for bytes in data.chunks(piece) {
        core.receive(bytes);
        core.check();
    }
    let error = core.error();
    let mut calls = Vec::new();
    while let Some((id, head)) = core.accept() {
        let shown = |(name, value): (&[u8], &[u8])| {
            format!("{}: {}", name.escape_ascii(), value.escape_ascii())
        };
        let fields: Vec<_> = head.fields().map(shown).collect();
        let fields = fields.join("; ");
        calls.push(Called { id, fields, payload: Vec::new(), end: String::new() });
    }
    for Called { id, payload, end, .. } in &mut calls {
        *end = loop {
            match core.read(*id) {
                Read::Bytes(bytes) => {
                    core.release(*id, bytes.len());
                    payload.extend(bytes);
                }
                other => break format!("{other:?}"),
            }
            core.check();
        };
        core.close_reader(*id);
        core.close_writer(*id);
        core.check();
    }
    Outcome { error, answered: written(&mut core), calls }
}
