//! Who listens for TCP connections on this host (in this network namespace): asked of the kernel by `sock_diag`,
//! which gives the listening sockets alone, however many connections there are.
//!
//! Must not know what is done about it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket's own number, as `/proc/PID/fd` shows it.
    pub inode: u64,
}

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// Of `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;
const TCP_LISTEN_BIT: u32 = 1 << 10;
const IPPROTO_TCP: u8 = 6;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
/// Longer than the kernel ever makes one answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The kernel answers at once; a lost answer must not hold anybody.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// All sockets that listen now, IPv4 and IPv6. Takes some tens of microseconds.
///
/// # Errors
/// The kernel's, where it does not tell.
pub fn all() -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let protocol = Protocol::from(NETLINK_SOCK_DIAG);
        let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.write_all(&request(family))?;
        let mut buf = vec![0; ANSWER_BYTES_MAX];
        loop {
            let count = socket.read(&mut buf)?;
            if count == 0 || parse(&buf[..count], &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// The number of one of our own sockets, as [`all`] gives it.
///
/// # Errors
/// The kernel's, as for want of a file descriptor.
pub fn inode(socket: &TcpListener) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::File::from(OwnedFd::from(socket.try_clone()?));
    Ok(file.metadata()?.ino())
}

/// A netlink header and `struct inet_diag_req_v2`: all that listen, of one family.
fn request(family: u8) -> Vec<u8> {
    const REQUEST_BYTES: u32 = 72;
    let mut bytes = Vec::new();
    bytes.extend(REQUEST_BYTES.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(TCP_LISTEN_BIT.to_ne_bytes());
    bytes.resize(REQUEST_BYTES as usize, 0);
    bytes
}

/// Reads one answer; whether it was the last.
fn parse(mut bytes: &[u8], found: &mut Vec<Listening>) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = bytes.get(HEADER_BYTES..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => found.extend(body.first_chunk().and_then(listening)),
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn listening(message: &[u8; MESSAGE_BYTES]) -> Option<Listening> {
    let port = u16::from_be_bytes([message[4], message[5]]);
    let source: [u8; 16] = message[8..24].try_into().ok()?;
    let ip: IpAddr = match i32::from(message[0]) {
        libc::AF_INET => Ipv4Addr::new(source[0], source[1], source[2], source[3]).into(),
        libc::AF_INET6 => Ipv6Addr::from(source).into(),
        _ => return None,
    };
    let inode = u32::from_ne_bytes([message[68], message[69], message[70], message[71]]);
    Some(Listening { address: SocketAddr::new(ip, port), inode: inode.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_sockets_are_among_them() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = v4.local_addr().unwrap();
        let expected = Listening { address, inode: inode(&v4).unwrap() };
        assert!(all().unwrap().contains(&expected));
        if let Ok(v6) = TcpListener::bind("[::1]:0") {
            let address = v6.local_addr().unwrap();
            assert!(all().unwrap().iter().any(|l| l.address == address));
        }
        drop(v4);
        assert!(!all().unwrap().contains(&expected));
    }

    #[test]
    fn what_is_cut_off_is_an_error_or_nothing() {
        let whole = {
            let mut bytes = 88_u32.to_ne_bytes().to_vec();
            bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            bytes.resize(88, 0);
            bytes[16] = FAMILIES[0];
            bytes
        };
        let mut found = Vec::new();
        assert!(!parse(&whole, &mut found).unwrap());
        assert_eq!(found.len(), 1);
        for cut in 0..whole.len() {
            let _ = parse(&whole[..cut], &mut found);
        }
        assert_eq!(found.len(), 1);
    }
}
