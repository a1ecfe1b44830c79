//! The Huffman code of HPACK (RFC 7541 section 5.2, appendix B), read. It is canonical: the lengths of the codes are
//! all there is to know, since codes of one length count up with the symbols, and go on where the shorter ones ended.
//!
//! Must not know what the strings are.

use super::Malformed;

const SYMBOLS: usize = 257;
/// Not a byte: what a string is filled up with.
const END: u16 = 256;
const BITS_MAX: usize = 30;

/// How many bits each byte has, and the end.
#[rustfmt::skip]
const BITS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// All codes, by length.
struct Codes {
    /// The symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// Of each length the first code, and where its symbol stands.
    first: [(u32, u16); BITS_MAX + 1],
    /// Behind the last code of each length, as the first bits of 32.
    end: [u64; BITS_MAX + 1],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes =
        Codes { symbols: [0; SYMBOLS], first: [(0, 0); BITS_MAX + 1], end: [0; BITS_MAX + 1] };
    let (mut code, mut place, mut bits) = (0_u32, 0_u16, 1);
    while bits <= BITS_MAX {
        code <<= 1;
        codes.first[bits] = (code, place);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if BITS[symbol] as usize == bits {
                codes.symbols[place as usize] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        codes.end[bits] = (code as u64) << (32 - bits);
        bits += 1;
    }
    codes
}

/// Reads a string and adds it to `out`: at most eight bytes for each five of it.
///
/// # Errors
/// Where the filling is longer than 7 bits or not all ones, or where the end stands within.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    const SHORTEST_BITS: u32 = 5;
    let mut rest = text.iter();
    // The bits that are there stand at the top.
    let (mut window, mut had) = (0_u64, 0_u32);
    loop {
        while had <= 56
            && let Some(byte) = rest.next()
        {
            window |= u64::from(*byte) << (56 - had);
            had += 8;
        }
        let top = window >> 32;
        let bits = (SHORTEST_BITS as usize..=BITS_MAX).find(|bits| top < CODES.end[*bits]);
        let fits = bits.filter(|bits| *bits as u32 <= had);
        let Some(bits) = fits else {
            // What is left is the beginning of the end's code, all ones.
            let filled = had < 8 && window == !(u64::MAX >> had);
            return if filled || had == 0 { Ok(()) } else { Err(Malformed::Huffman) };
        };
        let (first, place) = CODES.first[bits];
        let code = (top >> (32 - bits)) as u32;
        match CODES.symbols.get((code - first) as usize + usize::from(place)) {
            Some(symbol) if *symbol != END => out.push(*symbol as u8),
            _ => return Err(Malformed::Huffman),
        }
        window <<= bits;
        had -= bits as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a string, as the tests alone do.
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut out, mut window, mut had) = (Vec::new(), 0_u64, 0_usize);
        let code_of = |byte: u8| {
            let bits = usize::from(BITS[usize::from(byte)]);
            let (first, place) = CODES.first[bits];
            let at = CODES.symbols.iter().position(|s| *s == u16::from(byte)).unwrap();
            (u64::from(first) + (at - usize::from(place)) as u64, bits)
        };
        for byte in text {
            let (code, bits) = code_of(*byte);
            window = window << bits | code;
            had += bits;
            while had >= 8 {
                had -= 8;
                out.push((window >> had) as u8);
                window &= (1 << had) - 1;
            }
        }
        if had > 0 {
            out.push(((window << (8 - had)) | ((1 << (8 - had)) - 1)) as u8);
        }
        out
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Ok(all.clone()));
        for byte in all {
            for count in 0..6 {
                let text = vec![byte; count];
                assert_eq!(decoded(&encode(&text)), Ok(text));
            }
        }
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // RFC 7541 appendix C.4.1 and C.6.1.
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&coded), Ok(b"www.example.com".to_vec()));
        assert_eq!(decoded(&[0x64, 0x02]), Ok(b"302".to_vec()));
    }

    #[test]
    fn fillings_are_checked() {
        // Nothing; ones alone; a whole byte of them; the end itself; a filling of zeros.
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        assert_eq!(decoded(&[0x07]), Ok(b"0".to_vec()));
        for bad in [&[0xff][..], &[0x07, 0xff], &[0xff; 4], &[0xff; 5], &[0x00], &[0x06]] {
            assert_eq!(decoded(bad), Err(Malformed::Huffman), "{bad:?}");
        }
    }
}
