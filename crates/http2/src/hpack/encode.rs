//! Fields as HPACK writes them: names by their number where they have one, values as they are, nothing to be
//! remembered. So blocks do not depend on each other, and the other side needs no table.
//!
//! Must not know whether fields make sense.

use super::table::STATIC;

/// Of the static table: `:status` with 200.
const STATUS_200: u8 = 8;

/// Adds an answer's status.
pub fn put_status(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        out.push(0x80 | STATUS_200);
    } else {
        put_field(out, b":status", status.to_string().as_bytes());
    }
}

/// Adds a field, literal and without indexing (section 6.2.2).
pub fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    match STATIC.iter().position(|(known, _)| known.as_bytes() == name) {
        Some(at) => put_integer(out, 0, 4, at + 1),
        None => {
            out.push(0);
            put_string(out, name);
        }
    }
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// Section 5.1.
fn put_integer(out: &mut Vec<u8>, flags: u8, bits: u32, number: usize) {
    let most = (1_usize << bits) - 1;
    if number < most {
        return out.push(flags | number as u8);
    }
    out.push(flags | most as u8);
    let mut left = number - most;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::Decoder;

    #[test]
    fn numbers_are_those_of_the_rfc() {
        // Appendix C.1.
        for (number, bits, expected) in
            [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])]
        {
            let mut out = Vec::new();
            put_integer(&mut out, 0, bits, number);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_status(&mut out, 200);
        put_status(&mut out, 404);
        let long = "v".repeat(5000);
        for (name, value) in [("content-type", "a"), ("grpc-status", "0"), ("x", &long), ("y", "")]
        {
            put_field(&mut out, name.as_bytes(), value.as_bytes());
        }
        let mut seen = Vec::new();
        let mut decoder = Decoder::default();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(&out, &mut |name, value| seen.push((text(name), text(value)))).unwrap();
        let expected = [
            (":status", "200"),
            (":status", "404"),
            ("content-type", "a"),
            ("grpc-status", "0"),
            ("x", &long),
            ("y", ""),
        ];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
