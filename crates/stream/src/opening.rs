//! The beginning of what a client sends: whether it is a PROXY protocol header, and what the pod gets in its place.
//!
//! | pod wants one | client sent | pod gets |
//! |---|---|---|
//! | yes | a header, and may set it | that header, unchanged, and the rest |
//! | yes | a header, and may not set it | a header with the client's true address, and the rest |
//! | yes | something else, or nothing for a moment | a header with the client's true address, and that |
//! | no | a header | the rest |
//! | no | something else | that |
//!
//! Sans-io: bytes come in by [`Opening::push`], time by [`Opening::give_up`].

use std::net::SocketAddr;
use std::time::Duration;

use net::proxy_protocol::{Read, encode_v1, read};

/// What the receiving side expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pod {
    /// Every connection begins with a header.
    WantsHeader,
    /// None does.
    WantsNone,
}

/// What may be believed of the sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// It may say whose connection it is.
    MaySendHeader,
    /// If it sends a header, that is taken away and not believed.
    IsNotBelieved,
    /// It never sends one: whatever it sends is for the pod.
    SendsNone,
}

/// A beginning that is not complete.
#[derive(Debug)]
pub struct Opening {
    pod: Pod,
    client: Client,
    /// The header with the client's true address.
    own: Vec<u8>,
    /// What the client has sent: the beginning of a header.
    seen: Vec<u8>,
}

impl Opening {
    /// Of a connection from `source` to `destination`, which are its real endpoints.
    #[must_use]
    pub fn new(pod: Pod, client: Client, source: SocketAddr, destination: SocketAddr) -> Self {
        let mut own = Vec::new();
        if pod == Pod::WantsHeader {
            encode_v1(&mut own, source, destination);
        }
        Self { pod, client, own, seen: Vec::new() }
    }

    /// What can be sent to the pod before the client has said anything; `None` where that must be waited for.
    #[must_use]
    pub fn at_once(&mut self) -> Option<Vec<u8>> {
        (self.client == Client::SendsNone).then(|| std::mem::take(&mut self.own))
    }

    /// How long to wait for the client, of `moment`: `None` for as long as it likes. That is so where the pod gets
    /// nothing that the client has not sent: nobody waits for us then.
    #[must_use]
    pub fn patience(&self, moment: Duration) -> Option<Duration> {
        (self.pod == Pod::WantsHeader || !self.seen.is_empty()).then_some(moment)
    }

    /// Takes what the client sent. What is to be sent to the pod, once it is known what this is: then the opening is
    /// over. Never holds more than a header's bytes.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.seen.extend_from_slice(bytes);
        match read(&self.seen) {
            Ok(Read::Partial) => None,
            Ok(Read::Header(_, length)) => Some(self.with_header(length)),
            // What is broken is no header, and somebody else's protocol may begin so.
            Ok(Read::Other) | Err(_) => Some(self.give_up()),
        }
    }

    /// Nothing more will come, or not in time: what is to be sent to the pod. The opening is over.
    #[must_use]
    pub fn give_up(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.own);
        out.append(&mut self.seen);
        out
    }

    /// The client's header is so long.
    fn with_header(&mut self, length: usize) -> Vec<u8> {
        let mut seen = std::mem::take(&mut self.seen);
        match (self.pod, self.client) {
            (Pod::WantsHeader, Client::MaySendHeader) => seen,
            _ => {
                let mut out = std::mem::take(&mut self.own);
                out.extend_from_slice(&seen[length..]);
                seen.clear();
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "PROXY TCP4 10.0.0.9 10.0.0.1 4000 61000\r\n";

    fn opening(pod: Pod, client: Client) -> Opening {
        let source = "10.0.0.9:4000".parse().unwrap();
        Opening::new(pod, client, source, "10.0.0.1:61000".parse().unwrap())
    }

    /// What the pod gets, however the bytes are cut in two.
    fn all(pod: Pod, client: Client, sent: &[u8]) -> Vec<u8> {
        let mut results: Vec<Vec<u8>> = (0..=sent.len())
            .map(|cut| {
                let mut opening = opening(pod, client);
                let (first, second) = sent.split_at(cut);
                match opening.push(first) {
                    Some(out) => [&out, second].concat(),
                    None => opening.push(second).unwrap_or_else(|| opening.give_up()),
                }
            })
            .collect();
        results.dedup();
        assert_eq!(results.len(), 1, "the cut decides: {results:?}");
        results.remove(0)
    }

    #[test]
    fn the_table_of_the_module() {
        use Client::{IsNotBelieved, MaySendHeader};
        use Pod::{WantsHeader, WantsNone};
        let mut v2 = Vec::new();
        let inet = net::proxy_protocol::Addresses::Inet {
            source: "[fd00::1]:1".parse().unwrap(),
            destination: "[fd00::2]:2".parse().unwrap(),
        };
        net::proxy_protocol::encode_v2(&mut v2, inet, &[(5, b"id")]).unwrap();
        let headers: [&[u8]; 4] = [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP6 ::1 ::2 1 2\r\n",
            b"PROXY UNKNOWN x\r\n",
            &v2,
        ];
        let payload = b"PROXY payload";
        for header in headers {
            let sent = [header, payload].concat();
            assert_eq!(all(WantsHeader, MaySendHeader, &sent), sent);
            let true_one = [OWN.as_bytes(), payload].concat();
            assert_eq!(all(WantsHeader, IsNotBelieved, &sent), true_one);
            for client in [MaySendHeader, IsNotBelieved] {
                assert_eq!(all(WantsNone, client, &sent), payload);
            }
        }
        let others: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n", b"PROXY TCP5 x", b"\r\n\r\n\0x", b"PRO"];
        for sent in others {
            for client in [MaySendHeader, IsNotBelieved] {
                assert_eq!(all(WantsNone, client, sent), sent);
                assert_eq!(all(WantsHeader, client, sent), [OWN.as_bytes(), sent].concat());
            }
        }
    }

    #[test]
    fn who_waits_for_what() {
        let moment = Duration::from_millis(200);
        for (pod, client, at_once, patience, begun) in [
            (Pod::WantsHeader, Client::MaySendHeader, None, Some(moment), Some(moment)),
            (Pod::WantsNone, Client::MaySendHeader, None, None, Some(moment)),
            (Pod::WantsHeader, Client::SendsNone, Some(OWN), Some(moment), Some(moment)),
            (Pod::WantsNone, Client::SendsNone, Some(""), None, Some(moment)),
        ] {
            let mut opening = opening(pod, client);
            assert_eq!(opening.patience(moment), patience);
            assert_eq!(opening.at_once(), at_once.map(|text: &str| text.as_bytes().to_vec()));
            assert_eq!(opening.push(b"PRO"), None);
            assert_eq!(opening.patience(moment), begun);
        }
    }
}
