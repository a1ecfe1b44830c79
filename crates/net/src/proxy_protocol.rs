//! The PROXY protocol, versions 1 and 2: the header with which a proxy says on whose behalf it connects. Sans-io and
//! strict: what is not exactly a header is an error, and never guessed at.
//!
//! Who may be believed is the caller's to know. Start at [`read`]; [`encode_v1`] and [`encode_v2`] are the way back.
//! `v1` is the line of text, `v2` the binary form, as HAProxy's document `proxy-protocol.txt` has them.

mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

pub use v1::{V1_BYTES_MAX, encode as encode_v1};
pub use v2::{Tlv, Tlvs, V2_BYTES_MAX, encode as encode_v2};

/// Which form a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// The sender's own, as for a health check: the connection's real endpoints count (version 2, command LOCAL).
    Local,
    /// Not said, or not an IP address: the connection's real endpoints count.
    Unknown,
    /// Said.
    Inet {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'b> {
    /// Its form.
    pub version: Version,
    /// Whose connection it is.
    pub addresses: Addresses,
    /// Whether it is about datagrams (version 2 can say so); such a header makes no sense on a stream.
    pub datagrams: bool,
    /// What else it says (version 2).
    pub tlvs: Tlvs<'b>,
}

/// What the bytes at the beginning of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'b> {
    /// No header: no header begins so.
    Other,
    /// They could be the beginning of one: read more. Never said of [`V2_BYTES_MAX`] bytes or more.
    Partial,
    /// A header of so many bytes; what follows is the stream.
    Header(Header<'b>, usize),
}

/// Bytes that begin as a header does and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY protocol header: {reason}")]
pub struct InvalidHeader {
    /// Why not.
    pub reason: &'static str,
}

const fn invalid(reason: &'static str) -> InvalidHeader {
    InvalidHeader { reason }
}

/// Looks at the beginning of a stream.
///
/// # Errors
/// [`InvalidHeader`] where it begins as a header of either version does, and cannot become one.
pub fn read(bytes: &[u8]) -> Result<Read<'_>, InvalidHeader> {
    // The two signatures differ in the first byte.
    match bytes.first() {
        None => Ok(Read::Partial),
        Some(b'P') => v1::read(bytes),
        Some(&b'\r') => v2::read(bytes),
        Some(_) => Ok(Read::Other),
    }
}

/// Two addresses of one family: IPv4 where both are (mapped ones are), else both as IPv6.
fn of_one_family(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let (a, b) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V6(_)) => (a.to_ipv6_mapped().into(), b),
        (IpAddr::V6(_), IpAddr::V4(b)) => (a, b.to_ipv6_mapped().into()),
        same => same,
    };
    (SocketAddr::new(a, one.port()), SocketAddr::new(b, other.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough to be repeatable; not for secrets.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn address(&mut self) -> SocketAddr {
            let port = self.next() as u16;
            let ip: IpAddr = match self.next() % 3 {
                0 => std::net::Ipv4Addr::from_bits(self.next() as u32).into(),
                1 => {
                    let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
                    std::net::Ipv6Addr::from_bits(bits).into()
                }
                _ => std::net::Ipv4Addr::from_bits(self.next() as u32).to_ipv6_mapped().into(),
            };
            SocketAddr::new(ip, port)
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Vec<u8>> {
        let (source, destination) = (rng.address(), rng.address());
        let mut text = Vec::new();
        encode_v1(&mut text, source, destination);
        let mut binary = Vec::new();
        let addresses = Addresses::Inet { source, destination };
        encode_v2(&mut binary, addresses, &[(0x02, b"name.test"), (0xEA, &[1; 300])]).unwrap();
        let mut local = Vec::new();
        encode_v2(&mut local, Addresses::Local, &[]).unwrap();
        vec![text, binary, local, b"PROXY UNKNOWN anything at all\r\n".to_vec()]
    }

    #[test]
    fn what_is_written_is_read_and_every_beginning_of_it_is_partial() {
        let mut rng = Rng(0x5eed_0001);
        for _ in 0..300 {
            for sample in samples(&mut rng) {
                for cut in 0..sample.len() {
                    assert_eq!(read(&sample[..cut]), Ok(Read::Partial), "{cut} of {sample:?}");
                }
                let mut followed = sample.clone();
                followed.extend_from_slice(b"\r\nPROXY payload");
                for bytes in [&sample, &followed] {
                    let Ok(Read::Header(_, length)) = read(bytes) else { panic!("{bytes:?}") };
                    assert_eq!(length, sample.len());
                }
            }
        }
    }

    #[test]
    fn both_forms_carry_the_same_addresses() {
        let mut rng = Rng(0x5eed_0002);
        for _ in 0..2_000 {
            let (source, destination) = (rng.address(), rng.address());
            let mut text = Vec::new();
            encode_v1(&mut text, source, destination);
            let mut binary = Vec::new();
            encode_v2(&mut binary, Addresses::Inet { source, destination }, &[]).unwrap();
            let (one, other) = of_one_family(source, destination);
            let expected = Addresses::Inet { source: one, destination: other };
            for bytes in [text, binary] {
                let Ok(Read::Header(header, _)) = read(&bytes) else { panic!("{bytes:?}") };
                assert_eq!(header.addresses, expected);
            }
        }
    }

    #[test]
    fn nothing_makes_it_panic_read_too_much_or_wait_for_ever() {
        let mut rng = Rng(0x5eed_0003);
        for _ in 0..20_000 {
            let samples = samples(&mut rng);
            let mut bytes = samples[rng.next() as usize % samples.len()].clone();
            for _ in 0..=rng.next() % 3 {
                let at = rng.next() as usize % bytes.len();
                match rng.next() % 3 {
                    0 => bytes[at] = rng.next() as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, rng.next() as u8),
                }
            }
            if let Ok(Read::Header(header, length)) = read(&bytes) {
                assert!(length <= bytes.len());
                let _ = header.tlvs.count();
                // A header is one whatever follows, and was none before its last byte.
                assert_eq!(read(&bytes[..length - 1]), Ok(Read::Partial));
            }
            bytes.resize(V2_BYTES_MAX, b'x');
            assert_ne!(read(&bytes), Ok(Read::Partial));
        }
    }
}
