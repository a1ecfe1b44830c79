//! `traceparent` (W3C Trace Context, level 1): passed on where it is valid, begun where there is none.
//!
//! Must not know spans: the gateway records none of its own.

use balance::Rng;

/// Bytes of a version 00 value: `00-` trace id `-` parent id `-` flags.
const VALUE_BYTES: usize = 55;

/// A request's place in a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceParent {
    value: [u8; VALUE_BYTES],
    /// It is ours: the client brought none that is valid.
    pub(crate) begun: bool,
}

impl TraceParent {
    /// The client's, if it is valid, or a new one that nobody has decided to sample.
    pub(crate) fn of(sent: Option<&[u8]>, rng: &mut Rng) -> Self {
        match sent {
            Some(sent) if is_valid(sent) => {
                let mut value = [0; VALUE_BYTES];
                value.iter_mut().zip(sent).for_each(|(to, from)| *to = *from);
                Self { value, begun: false }
            }
            _ => Self { value: begin(rng), begun: true },
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.value
    }

    /// The trace's id, 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &str {
        self.value.get(3..35).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
    }
}

fn begin(rng: &mut Rng) -> [u8; VALUE_BYTES] {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    // Neither id may be all zeroes.
    let words = [(3, rng.next_u64() | 1), (19, rng.next_u64()), (36, rng.next_u64() | 1)];
    for (place, word) in words {
        if let Some(digits) = value.get_mut(place..place + 16) {
            digits.copy_from_slice(&hexadecimal(word));
        }
    }
    value
}

/// Sixteen hexadecimal digits, all at once.
fn hexadecimal(word: u64) -> [u8; 16] {
    const LOW_NIBBLES: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    const ONES: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // Each byte's two digits into a byte of their own, by halves.
    let mut spread = u128::from(word);
    for (shift, mask) in [
        (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
        (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
        (4, LOW_NIBBLES),
    ] {
        spread = (spread | (spread << shift)) & mask;
    }
    // 1 in each byte whose digit is a letter.
    let letters = ((spread + ONES * 6) >> 4) & ONES;
    let digits = spread + ONES * u128::from(b'0') + letters * u128::from(b'a' - b'9' - 1);
    digits.to_be_bytes()
}

/// Whether a value is one of version 00, or of a later version that begins like it (section 4.3).
fn is_valid(value: &[u8]) -> bool {
    let hex = |part: Option<&[u8]>| {
        part.is_some_and(|p| p.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let not_zero = |part: Option<&[u8]>| part.is_some_and(|p| p.iter().any(|b| *b != b'0'));
    let dash = |at: usize| value.get(at) == Some(&b'-');
    let version = value.get(0..2);
    let long_enough = match version {
        Some(b"00") => value.len() == VALUE_BYTES,
        Some(b"ff") | None => false,
        Some(_) => value.len() == VALUE_BYTES || dash(VALUE_BYTES),
    };
    long_enough
        && hex(version)
        && dash(2)
        && hex(value.get(3..35))
        && not_zero(value.get(3..35))
        && dash(35)
        && hex(value.get(36..52))
        && not_zero(value.get(36..52))
        && dash(52)
        && hex(value.get(53..55))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_begin_is_valid_and_never_the_same() {
        let mut rng = Rng::new(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let trace = TraceParent::of(None, &mut rng);
            assert!(trace.begun && is_valid(trace.as_bytes()));
            assert!(seen.insert(trace.trace_id().to_owned()));
        }
    }

    #[test]
    fn digits_are_hexadecimal() {
        for word in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0xf0f0_a09a_9aa0_0f0f] {
            assert_eq!(hexadecimal(word), *format!("{word:016x}").as_bytes());
        }
    }

    #[test]
    fn valid_values_pass_and_others_are_replaced() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceParent::of(Some(good), &mut Rng::new(1));
        assert!(!trace.begun);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(TraceParent::of(Some(bad.as_bytes()), &mut Rng::new(1)).begun, "{bad}");
        }
    }
}
