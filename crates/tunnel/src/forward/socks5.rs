//! The server's side of SOCKS5: RFC 1928 for CONNECT, and RFC 1929 for a name and a password.
//!
//! Must not know where connections go.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use model::HostName;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::NotForwarded;
use crate::client::ClientError;

const VERSION: u8 = 5;
/// RFC 1929's own version.
const PASSWORD_VERSION: u8 = 1;

const METHOD_NONE: u8 = 0;
const METHOD_PASSWORD: u8 = 2;
const METHOD_REFUSED: u8 = 0xff;

const CONNECT: u8 = 1;

/// Codes of RFC 1928 section 6.
pub(super) const GRANTED: u8 = 0;
const FAILED: u8 = 1;
const NETWORK_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS: u8 = 8;

/// A name and a password.
#[derive(Clone)]
pub struct Credentials {
    name: Vec<u8>,
    password: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Both from 1 to 255 bytes, as RFC 1929 has them; else `None`.
    #[must_use]
    pub fn new(name: &str, password: &str) -> Option<Self> {
        let fits = |text: &str| (1..=255).contains(&text.len());
        let (name_bytes, password_bytes) = (name.as_bytes().to_vec(), password.as_bytes().to_vec());
        let both = fits(name) && fits(password);
        both.then_some(Self { name: name_bytes, password: password_bytes })
    }

    fn are(&self, name: &[u8], password: &[u8]) -> bool {
        (self.name.ct_eq(name) & self.password.ct_eq(password)).into()
    }
}

/// The reply of RFC 1928 section 6. Which address the agent has is nobody's business.
pub(super) fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The code that says best what went wrong.
pub(super) fn code_of(error: &ClientError) -> u8 {
    match error.as_str() {
        "refused" => REFUSED,
        "unreachable" => NETWORK_UNREACHABLE,
        "resolve" | "timeout" => HOST_UNREACHABLE,
        _ => FAILED,
    }
}

/// Where a program wants to go, as `host:port`. One that asks wrongly has been told so.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    program: &mut S,
    credentials: Option<&Credentials>,
) -> Result<String, NotForwarded> {
    method(program, credentials).await?;
    let [version, command, _, kind] = read(program).await?;
    if version != VERSION {
        return Err(NotForwarded::Unasked("its request is not SOCKS5"));
    }
    let address = match kind {
        1 => {
            let [a, b, c, d, high, low] = read(program).await?;
            SocketAddr::from((Ipv4Addr::new(a, b, c, d), port(high, low))).to_string()
        }
        4 => {
            let ip = Ipv6Addr::from(read::<16>(program).await?);
            let [high, low] = read(program).await?;
            SocketAddr::from((ip, port(high, low))).to_string()
        }
        3 => {
            let [length] = read(program).await?;
            let mut name = vec![0; usize::from(length)];
            program.read_exact(&mut name).await?;
            let [high, low] = read(program).await?;
            let name = std::str::from_utf8(&name).ok().and_then(|name| HostName::parse(name).ok());
            let Some(name) = name else {
                return refuse(program, HOST_UNREACHABLE, "its host name is none").await;
            };
            match name.as_str().parse() {
                Ok(ip) => SocketAddr::new(ip, port(high, low)).to_string(),
                Err(_) => format!("{name}:{}", port(high, low)),
            }
        }
        _ => return refuse(program, NO_SUCH_ADDRESS, "its kind of address is unknown").await,
    };
    if command != CONNECT {
        return refuse(program, NO_SUCH_COMMAND, "it does not want CONNECT").await;
    }
    if address.ends_with(":0") {
        return refuse(program, FAILED, "port 0").await;
    }
    Ok(address)
}

/// Agrees upon how the program says who it is, and has it say so.
async fn method<S: AsyncRead + AsyncWrite + Unpin>(
    program: &mut S,
    credentials: Option<&Credentials>,
) -> Result<(), NotForwarded> {
    let [version, count] = read(program).await?;
    if version != VERSION {
        return Err(NotForwarded::Unasked("it does not speak SOCKS5"));
    }
    let mut methods = vec![0; usize::from(count)];
    program.read_exact(&mut methods).await?;
    let wanted = if credentials.is_some() { METHOD_PASSWORD } else { METHOD_NONE };
    if !methods.contains(&wanted) {
        program.write_all(&[VERSION, METHOD_REFUSED]).await?;
        return Err(NotForwarded::Unasked("it does not offer the way to log in that is wanted"));
    }
    program.write_all(&[VERSION, wanted]).await?;
    let Some(credentials) = credentials else { return Ok(()) };
    let [version, length] = read(program).await?;
    let mut name = vec![0; usize::from(length)];
    program.read_exact(&mut name).await?;
    let [length] = read(program).await?;
    let mut password = vec![0; usize::from(length)];
    program.read_exact(&mut password).await?;
    let fine = version == PASSWORD_VERSION && credentials.are(&name, &password);
    program.write_all(&[PASSWORD_VERSION, u8::from(!fine)]).await?;
    if fine { Ok(()) } else { Err(NotForwarded::Unasked("a wrong name or password")) }
}

async fn refuse<S: AsyncWrite + Unpin>(
    program: &mut S,
    code: u8,
    why: &'static str,
) -> Result<String, NotForwarded> {
    program.write_all(&reply(code)).await?;
    program.shutdown().await?;
    Err(NotForwarded::Unasked(why))
}

async fn read<const COUNT: usize>(
    program: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    program.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn port(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What came of what a program says, and what it was told.
    async fn asked(said: &[u8], credentials: Option<&Credentials>) -> (Option<String>, Vec<u8>) {
        let (mut program, mut here) = tokio::io::duplex(4096);
        program.write_all(said).await.unwrap();
        program.shutdown().await.unwrap();
        let address = ask(&mut here, credentials).await.ok();
        drop(here);
        let mut told = Vec::new();
        program.read_to_end(&mut told).await.unwrap();
        (address, told)
    }

    #[tokio::test]
    async fn every_kind_of_address_is_understood() {
        let request = |rest: &[u8]| [&[5, 1, 0, 5, 1, 0][..], rest].concat();
        let v6 = [&[4][..], &Ipv6Addr::LOCALHOST.octets(), &[0, 80]].concat();
        for (said, address) in [
            (request(&[1, 10, 0, 0, 1, 1, 187]), "10.0.0.1:443"),
            (request(&v6), "[::1]:80"),
            (request(b"\x03\x06a.test\x00\x50"), "a.test:80"),
            (request(b"\x03\x09127.0.0.1\x00\x50"), "127.0.0.1:80"),
        ] {
            let (found, told) = asked(&said, None).await;
            assert_eq!((found.as_deref(), &told[..]), (Some(address), &[5, 0][..]));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_gets_its_code() {
        let begin: &[u8] = &[5, 1, 0];
        for (said, told) in [
            // BIND, an unknown kind of address, a name that is none, port 0.
            ([begin, &[5, 2, 0, 1, 10, 0, 0, 1, 1, 187]].concat(), Some(NO_SUCH_COMMAND)),
            ([begin, &[5, 1, 0, 9, 1]].concat(), Some(NO_SUCH_ADDRESS)),
            ([begin, b"\x05\x01\x00\x03\x03a b\x00\x50"].concat(), Some(HOST_UNREACHABLE)),
            ([begin, b"\x05\x01\x00\x03\x00\x00\x50"].concat(), Some(HOST_UNREACHABLE)),
            ([begin, &[5, 1, 0, 1, 10, 0, 0, 1, 0, 0]].concat(), Some(FAILED)),
            // Cut short.
            ([begin, &[5, 1, 0, 1, 10]].concat(), None),
        ] {
            let (found, all) = asked(&said, None).await;
            assert_eq!(found, None, "{said:?}");
            let rest = told.map(reply).map(|reply| reply.to_vec()).unwrap_or_default();
            assert_eq!(all, [&[5, 0][..], &rest].concat(), "{said:?}");
        }
        // Another version, another method.
        assert_eq!(asked(b"\x04\x01\x00\x50", None).await, (None, Vec::new()));
        assert_eq!(asked(&[5, 1, 2], None).await, (None, vec![5, METHOD_REFUSED]));
    }

    #[tokio::test]
    async fn a_name_and_a_password_are_asked_for_where_they_are_set() {
        let credentials = Credentials::new("leaf", "green").unwrap();
        let request = b"\x05\x01\x00\x03\x06a.test\x00\x50";
        let login = |password: &[u8]| {
            let length = u8::try_from(password.len()).unwrap();
            [&b"\x05\x02\x00\x02\x01\x04leaf"[..], &[length], password, request].concat()
        };
        let (found, told) = asked(&login(b"green"), Some(&credentials)).await;
        assert_eq!((found.as_deref(), &told[..]), (Some("a.test:80"), &[5, 2, 1, 0][..]));
        for password in [&b"grey"[..], b"", b"greens"] {
            let (found, told) = asked(&login(password), Some(&credentials)).await;
            assert_eq!((found, &told[..]), (None, &[5, 2, 1, 1][..]));
        }
        // One that offers none does not get in.
        assert_eq!(asked(&[5, 1, 0], Some(&credentials)).await, (None, vec![5, METHOD_REFUSED]));
        assert!(Credentials::new("", "x").is_none());
        assert!(Credentials::new("x", &"y".repeat(256)).is_none());
        assert!(!format!("{credentials:?}").contains("green"));
    }
}
