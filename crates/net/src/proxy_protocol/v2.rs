//! Version 2: a signature of 12 bytes, version and command, family and transport, a length, addresses, and then
//! fields of type, length and value (TLVs).

use std::net::{IpAddr, SocketAddr};

use super::{Addresses, Header, InvalidHeader, Read, Version, invalid, of_one_family};

/// The longest header that is read: far more than anybody sends, far less than the 65,551 that the format allows.
pub const V2_BYTES_MAX: usize = 4096;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;
const TYPE_CRC32C: u8 = 0x03;

/// One field: its type (0x01 ALPN, 0x02 authority, 0x03 CRC32C, 0x05 unique id, 0x20 TLS, 0xE0 and up somebody's own)
/// and its value.
pub type Tlv<'b> = (u8, &'b [u8]);

/// The fields of a header, in their order. Whole and well-formed: [`super::read`] has checked it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tlvs<'b>(&'b [u8]);

impl<'b> Iterator for Tlvs<'b> {
    type Item = Tlv<'b>;

    fn next(&mut self) -> Option<Tlv<'b>> {
        let (tlv, rest) = split_tlv(self.0)?;
        self.0 = rest;
        Some(tlv)
    }
}

/// The first field and what follows it; `None` where there is no whole one.
fn split_tlv(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some(((*kind, value), rest))
}

/// See [`super::read`].
pub(super) fn read(bytes: &[u8]) -> Result<Read<'_>, InvalidHeader> {
    let (begin, _) = bytes.split_at(bytes.len().min(SIGNATURE.len()));
    if !SIGNATURE.starts_with(begin) {
        return Ok(Read::Other);
    }
    if let Some(version) = bytes.get(12)
        && !matches!(version, 0x20 | 0x21)
    {
        return Err(invalid("its version is not 2, or its command neither LOCAL nor PROXY"));
    }
    let address_bytes = match bytes.get(13) {
        None | Some(0x00) => 0,
        Some(0x11 | 0x12) => 12,
        Some(0x21 | 0x22) => 36,
        Some(0x31 | 0x32) => 216,
        Some(_) => return Err(invalid("its family or transport is none that is assigned")),
    };
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(Read::Partial);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > V2_BYTES_MAX {
        return Err(invalid("longer than 4096 bytes"));
    }
    // What follows is to be passed over where the command is LOCAL.
    let local = fixed[12] == 0x20;
    if length < address_bytes && !local {
        return Err(invalid("too short for its addresses"));
    }
    let Some(body) = rest.get(..length) else { return Ok(Read::Partial) };
    let (addresses, tlvs) = body.split_at(address_bytes.min(length));
    let whole = &bytes[..FIXED_BYTES + length];
    let tlvs = checked(tlvs, whole)?;
    let addresses = if local { Addresses::Local } else { addresses_of(fixed[13], addresses) };
    let datagrams = !local && fixed[13] & 0x0F == 2;
    Ok(Read::Header(Header { version: Version::V2, addresses, datagrams, tlvs }, whole.len()))
}

fn addresses_of(family: u8, bytes: &[u8]) -> Addresses {
    let inet = |source: IpAddr, destination: IpAddr, ports: [u8; 4]| Addresses::Inet {
        source: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
    };
    let read = || match family >> 4 {
        1 => {
            let (source, rest) = bytes.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            Some(inet((*source).into(), (*destination).into(), *rest.first_chunk()?))
        }
        2 => {
            let (source, rest) = bytes.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            Some(inet((*source).into(), (*destination).into(), *rest.first_chunk()?))
        }
        _ => None,
    };
    read().unwrap_or(Addresses::Unknown)
}

/// The fields, if they fill their place exactly, and the checksum of the whole header is right where there is one.
fn checked<'b>(tlvs: &'b [u8], whole: &[u8]) -> Result<Tlvs<'b>, InvalidHeader> {
    let mut rest = tlvs;
    while !rest.is_empty() {
        let (tlv, after) = split_tlv(rest).ok_or(invalid("a field that ends outside of it"))?;
        if tlv.0 == TYPE_CRC32C {
            let said: [u8; 4] =
                tlv.1.try_into().map_err(|_| invalid("a checksum that is not 4 bytes long"))?;
            let at = whole.len() - after.len() - said.len();
            if crc32c(whole, at..at + said.len()) != u32::from_be_bytes(said) {
                return Err(invalid("its checksum is wrong"));
            }
        }
        rest = after;
    }
    Ok(Tlvs(tlvs))
}

/// CRC32C (RFC 3720 appendix B.4), with the bytes of one range taken as 0.
fn crc32c(bytes: &[u8], zero: std::ops::Range<usize>) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82F6_3B78;
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        crc ^= u32::from(if zero.contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL_REVERSED & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

/// Appends a header for a stream. Of an IPv4 and an IPv6 address both are written as IPv6, the former as a mapped one.
///
/// # Errors
/// [`InvalidHeader`] where it would be longer than [`V2_BYTES_MAX`]; nothing is appended then.
pub fn encode(
    out: &mut Vec<u8>,
    addresses: Addresses,
    tlvs: &[Tlv<'_>],
) -> Result<(), InvalidHeader> {
    let mut body = Vec::new();
    let (command, family) = match addresses {
        Addresses::Local => (0x20, 0x00),
        Addresses::Unknown => (0x21, 0x00),
        Addresses::Inet { source, destination } => {
            let (source, destination) = of_one_family(source, destination);
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()),
                }
            }
            body.extend_from_slice(&source.port().to_be_bytes());
            body.extend_from_slice(&destination.port().to_be_bytes());
            (0x21, if source.is_ipv4() { 0x11 } else { 0x21 })
        }
    };
    for (kind, value) in tlvs {
        let length = u16::try_from(value.len()).map_err(|_| invalid("a field that is too long"))?;
        body.push(*kind);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value);
    }
    if FIXED_BYTES + body.len() > V2_BYTES_MAX {
        return Err(invalid("longer than 4096 bytes"));
    }
    out.extend_from_slice(&SIGNATURE);
    out.extend_from_slice(&[command, family]);
    // At most V2_BYTES_MAX.
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.append(&mut body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn headers_by_family_and_command() {
        let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0xFF, 0xFF];
        let inet = Addresses::Inet {
            source: "1.2.3.4:9".parse().unwrap(),
            destination: "5.6.7.8:65535".parse().unwrap(),
        };
        for (bytes, addresses, datagrams) in [
            (header(0x21, 0x11, &v4), inet, false),
            (header(0x21, 0x12, &v4), inet, true),
            (header(0x20, 0x11, &v4), Addresses::Local, false),
            (header(0x20, 0x00, &[]), Addresses::Local, false),
            (header(0x20, 0x21, &[]), Addresses::Local, false),
            (header(0x21, 0x00, &[]), Addresses::Unknown, false),
            (header(0x21, 0x31, &[0; 216]), Addresses::Unknown, false),
        ] {
            let Ok(Read::Header(header, length)) = read(&bytes) else { panic!("{bytes:?}") };
            assert_eq!((header.addresses, header.datagrams), (addresses, datagrams));
            assert_eq!(length, bytes.len());
        }
    }

    #[test]
    fn what_breaks_a_rule() {
        let tlv = |tlv: &[u8]| header(0x21, 0x00, tlv);
        for (bytes, reason) in [
            (header(0x22, 0x00, &[]), "command"),
            (header(0x11, 0x00, &[]), "version"),
            (header(0x21, 0x13, &[0; 12]), "assigned"),
            (header(0x21, 0x41, &[0; 12]), "assigned"),
            (header(0x21, 0x11, &[0; 11]), "too short"),
            (header(0x21, 0x21, &[0; 35]), "too short"),
            (tlv(&[4]), "outside"),
            (tlv(&[4, 0, 2, 0]), "outside"),
            (tlv(&[3, 0, 3, 0, 0, 0]), "4 bytes"),
            (tlv(&[3, 0, 4, 0, 0, 0, 0]), "checksum is wrong"),
            (header(0x21, 0x00, &[0; V2_BYTES_MAX]), "longer"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.reason.contains(reason), "{reason}: {error}");
        }
        assert_eq!(read(b"\r\n\r\n\0\r\nQUIT!"), Ok(Read::Other));
        assert_eq!(read(b"\r\nx"), Ok(Read::Other));
    }

    #[test]
    fn a_right_checksum_and_other_fields_are_read() {
        assert_eq!(crc32c(b"123456789", 0..0), 0xE306_9283);
        let mut bytes = header(0x21, 0x00, &[2, 0, 1, b'a', 3, 0, 4, 0, 0, 0, 0, 4, 0, 0]);
        let at = bytes.len() - 7;
        let sum = crc32c(&bytes, at..at + 4);
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        let Ok(Read::Header(header, _)) = read(&bytes) else { panic!() };
        let kinds: Vec<u8> = header.tlvs.map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [2, 3, 4]);
        assert_eq!({ header.tlvs }.next(), Some((2, &b"a"[..])));
    }
}
