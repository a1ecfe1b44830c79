//! Version 1: `PROXY` SP (`TCP4`|`TCP6`|`UNKNOWN`) SP source SP destination SP port SP port CRLF.
//!
//! Single spaces, addresses in their usual forms, decimal ports without leading zeros; nothing else.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Header, InvalidHeader, Read, Tlvs, Version, invalid, of_one_family};

/// The longest line, its CRLF included.
pub const V1_BYTES_MAX: usize = 107;

const SIGNATURE: &[u8] = b"PROXY ";
const FAMILIES: [&[u8]; 4] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN ", b"UNKNOWN\r\n"];

/// See [`super::read`].
pub(super) fn read(bytes: &[u8]) -> Result<Read<'static>, InvalidHeader> {
    let Some(rest) = bytes.strip_prefix(SIGNATURE) else {
        return Ok(if SIGNATURE.starts_with(bytes) { Read::Partial } else { Read::Other });
    };
    if !FAMILIES.iter().any(|family| family.starts_with(rest) || rest.starts_with(family)) {
        return Err(invalid("its family is none of TCP4, TCP6 and UNKNOWN"));
    }
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        if bytes.len() >= V1_BYTES_MAX {
            return Err(invalid("no end of the line within 107 bytes"));
        }
        if !could_go_on(rest) {
            return Err(invalid("a character that belongs into no address or port"));
        }
        return Ok(Read::Partial);
    };
    let line = &bytes[SIGNATURE.len()..end];
    let addresses = match line.get(..5) {
        Some(b"TCP4 ") => inet::<Ipv4Addr>(&line[5..])?,
        Some(b"TCP6 ") => inet::<Ipv6Addr>(&line[5..])?,
        _ => Addresses::Unknown,
    };
    let header =
        Header { version: Version::V1, addresses, datagrams: false, tlvs: Tlvs::default() };
    Ok(Read::Header(header, end + 2))
}

/// Whether an unfinished line has only characters that a finished one can have: of the family, and after UNKNOWN, any.
fn could_go_on(rest: &[u8]) -> bool {
    let Some(fields) = rest.strip_prefix(b"TCP4 ").or_else(|| rest.strip_prefix(b"TCP6 ")) else {
        return true;
    };
    let fields = fields.strip_suffix(b"\r").unwrap_or(fields);
    fields.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b' ' | b':' | b'.'))
}

fn inet<A: std::str::FromStr + Into<IpAddr>>(fields: &[u8]) -> Result<Addresses, InvalidHeader> {
    let text = std::str::from_utf8(fields).map_err(|_| invalid("not text"))?;
    let mut fields = text.split(' ');
    let mut address = || {
        let field = fields.next().and_then(|f| f.parse::<A>().ok()).map(Into::into);
        field.ok_or(invalid("an address that is none of its family"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || fields.next().and_then(port).ok_or(invalid("a port that is none"));
    let (source_port, destination_port) = (port()?, port()?);
    if fields.next().is_some() {
        return Err(invalid("more than two addresses and two ports"));
    }
    Ok(Addresses::Inet {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Decimal digits, no sign, no leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Appends a header. Of an IPv4 and an IPv6 address both are written as IPv6, the former as a mapped one.
pub fn encode(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let (source, destination) = of_one_family(source, destination);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    // Writing into a vector does not fail.
    let _ = write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(source: &str, destination: &str) -> Addresses {
        Addresses::Inet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn lines_that_are_headers() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
        for (line, expected) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 65535\r\n", inet("1.2.3.4:9", "5.6.7.8:65535")),
            ("PROXY TCP6 ::1 2001:DB8::f 0 1\r\n", inet("[::1]:0", "[2001:db8::f]:1")),
            ("PROXY TCP6 ::ffff:1.2.3.4 ::1 7 1\r\n", inet("[::ffff:1.2.3.4]:7", "[::1]:1")),
            ("PROXY UNKNOWN\r\n", Addresses::Unknown),
            ("PROXY UNKNOWN \r\n", Addresses::Unknown),
            ("PROXY UNKNOWN ffff\0 x\n 70000\r\n", Addresses::Unknown),
            (&longest, Addresses::Unknown),
        ] {
            let Ok(Read::Header(header, length)) = read(line.as_bytes()) else { panic!("{line}") };
            assert_eq!((header.addresses, length), (expected, line.len()), "{line}");
        }
    }

    #[test]
    fn lines_that_are_none() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 15));
        for line in [
            "PROXY TCP\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 9 1\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY  TCP4 1.2.3.4 5.6.7.8 9 1\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 9 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 1 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 09 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +9 1\r\n",
            "PROXY TCP4 1.2.3.04 5.6.7.8 9 1\r\n",
            "PROXY TCP4 ::1 ::1 9 1\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 9 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 1\n\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 9 1\rx",
            "PROXY LIST",
            "PROXY TCP4 é",
            &long,
        ] {
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
        for line in ["PRO", "PROXY", "PROXY ", "PROXY TC", "PROXY UNKNOWN\r"] {
            assert_eq!(read(line.as_bytes()), Ok(Read::Partial), "{line}");
        }
        for line in ["PROXZ TCP4", "PROXY\r\n", "POST / HTTP/1.1"] {
            assert_eq!(read(line.as_bytes()), Ok(Read::Other), "{line}");
        }
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let mut out = Vec::new();
        encode(&mut out, "1.2.3.4:5".parse().unwrap(), "[::1]:6".parse().unwrap());
        assert_eq!(out, b"PROXY TCP6 ::ffff:1.2.3.4 ::1 5 6\r\n");
        out.clear();
        encode(&mut out, "[::ffff:1.2.3.4]:5".parse().unwrap(), "5.6.7.8:6".parse().unwrap());
        assert_eq!(out, b"PROXY TCP4 1.2.3.4 5.6.7.8 5 6\r\n");
    }
}
