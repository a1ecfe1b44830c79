//! Fields out of a block (RFC 7541 section 6). What is remembered between blocks is bounded by
//! [`TABLE_BYTES_MAX`] and by what was agreed upon.
//!
//! Must not know what fields mean, nor keep them: they are handed on one by one.

use super::table::{Dynamic, STATIC};
use super::{Malformed, huffman};

/// The dynamic table before anything was agreed upon (RFC 9113 section 6.5.2).
pub(crate) const TABLE_BYTES_MAX: usize = 4096;

/// Most names and values are shorter.
const SCRATCH_BYTES: usize = 64;

/// Reads the blocks of one connection, each whole.
#[derive(Debug)]
pub struct Decoder {
    dynamic: Dynamic,
    /// What the other side may make of the table, and what it has.
    allowed: usize,
    size: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { dynamic: Dynamic::default(), allowed: TABLE_BYTES_MAX, size: TABLE_BYTES_MAX }
    }
}

impl Decoder {
    /// The other side has agreed to have no more remembered than this.
    pub fn limit(&mut self, bytes: usize) {
        self.allowed = bytes.min(TABLE_BYTES_MAX);
        self.resize(self.size.min(self.allowed));
    }

    fn resize(&mut self, size: usize) {
        self.size = size;
        self.dynamic.shrink(size);
    }

    /// Hands on each field of a whole block.
    ///
    /// # Errors
    /// [`Malformed`]; nothing can be read after it.
    pub fn decode(
        &mut self,
        block: &[u8],
        field: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let mut input = Input(block);
        let (mut name, mut value) =
            (Vec::with_capacity(SCRATCH_BYTES), Vec::with_capacity(SCRATCH_BYTES));
        let mut begun = false;
        while let Some(first) = input.0.first().copied() {
            match first {
                0x80.. => {
                    let index = input.integer(7)?;
                    let (name, value) = self.get(index)?;
                    field(name, value);
                }
                0x20..=0x3f => {
                    let size = input.integer(5)?;
                    // Only before the first field (section 4.2).
                    if begun || size > self.allowed {
                        return Err(Malformed::Size);
                    }
                    self.resize(size);
                    continue;
                }
                _ => {
                    let remember = first & 0x40 != 0;
                    let index = input.integer(if remember { 6 } else { 4 })?;
                    name.clear();
                    match index {
                        0 => input.string(&mut name)?,
                        index => name.extend_from_slice(self.get(index)?.0),
                    }
                    value.clear();
                    input.string(&mut value)?;
                    field(&name, &value);
                    if remember {
                        self.dynamic.insert(&name, &value, self.size);
                    }
                }
            }
            begun = true;
        }
        Ok(())
    }

    /// The field of a number (section 2.3.3).
    fn get(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed::Index)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        self.dynamic.get(at - STATIC.len()).ok_or(Malformed::Index)
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number whose first byte has so many bits of it (section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let most = (1_usize << bits) - 1;
        let mut number = usize::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        // Four bytes are more than any block has place for.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    /// A string (section 5.2).
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let coded = self.0.first().ok_or(Malformed::Short)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        if coded {
            return huffman::decode(text, out);
        }
        out.extend_from_slice(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, Malformed> {
        let mut seen = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, &mut |name, value| {
            seen.push(format!("{}: {}", text(name), text(value)));
        })?;
        Ok(seen.join("\n"))
    }

    /// Blocks one after the other, what they say, and how large the table is then.
    fn check(size: usize, blocks: &[(&str, &str, usize)]) {
        let mut decoder = Decoder { size, ..Decoder::default() };
        for (block, expected, table) in blocks {
            let seen = decoded(&mut decoder, &hex(block)).unwrap();
            assert_eq!((seen.as_str(), decoder.dynamic.bytes()), (*expected, *table), "{block}");
        }
    }

    #[test]
    fn single_fields_of_appendix_c_2() {
        let field = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
        check(4096, &[(field, "custom-key: custom-header", 55)]);
        check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0)]);
        check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0)]);
        check(4096, &[("82", ":method: GET", 0)]);
    }

    const REQUESTS: [&str; 3] = [
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\
         cache-control: no-cache",
        ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
         custom-key: custom-value",
    ];

    #[test]
    fn requests_of_appendix_c_3_and_c_4() {
        let [first, second, third] = REQUESTS;
        check(
            4096,
            &[
                ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", first, 57),
                ("8286 84be 5808 6e6f 2d63 6163 6865", second, 110),
                (
                    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                    third,
                    164,
                ),
            ],
        );
        check(
            4096,
            &[
                ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", first, 57),
                ("8286 84be 5886 a8eb 1064 9cbf", second, 110),
                ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", third, 164),
            ],
        );
    }

    const ANSWERS: [&str; 3] = [
        ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com",
        ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com",
        ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
         location: https://www.example.com\ncontent-encoding: gzip\n\
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];

    #[test]
    fn answers_of_appendix_c_5_and_c_6() {
        let [first, second, third] = ANSWERS;
        check(
            256,
            &[
                (
                    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 \
                     3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 \
                     7861 6d70 6c65 2e63 6f6d",
                    first,
                    222,
                ),
                ("4803 3330 37c1 c0bf", second, 222),
                (
                    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 \
                     474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 \
                     454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 \
                     6572 7369 6f6e 3d31",
                    third,
                    215,
                ),
            ],
        );
        check(
            256,
            &[
                (
                    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 \
                     82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                    first,
                    222,
                ),
                ("4883 640e ffc1 c0bf", second, 222),
                (
                    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b \
                     d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 \
                     0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                    third,
                    215,
                ),
            ],
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use Malformed::{Huffman, Index, Number, Short, Size};
        for (block, expected) in [
            ("80", Index),
            ("be", Index),
            ("ff", Short),
            ("ff ff ff ff ff ff", Number),
            ("41", Short),
            ("41 05 61", Short),
            ("7e 01 61", Index),
            ("41 81 ff", Huffman),
            ("82 20", Size),
            ("3f e2 1f", Size),
        ] {
            assert_eq!(decoded(&mut Decoder::default(), &hex(block)), Err(expected), "{block}");
        }
    }

    #[test]
    fn a_table_that_is_given_up_holds_nothing() {
        let mut decoder = Decoder::default();
        assert!(decoded(&mut decoder, &hex("4101 61")).is_ok());
        assert!(decoded(&mut decoder, &hex("be")).is_ok());
        decoder.limit(0);
        assert_eq!(decoder.dynamic.bytes(), 0);
        assert_eq!(decoded(&mut decoder, &hex("be")), Err(Malformed::Index));
        // One too long for it is read all the same.
        assert_eq!(decoded(&mut decoder, &hex("20 4101 61")).unwrap(), ":authority: a");
        assert_eq!(decoder.dynamic.bytes(), 0);
        assert_eq!(decoded(&mut decoder, &hex("3f e1 1f")), Err(Malformed::Size));
    }
}
