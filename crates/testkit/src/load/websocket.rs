//! As much of a WebSocket (RFC 6455) as a client needs whose short messages come back.

use crate::client::{Client, Failure};

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// A frame with a longer length field is none of ours.
const SHORT_BYTES_MAX: u8 = 125;

/// An open one.
pub(super) struct WebSocket {
    client: Client,
    sent: u32,
}

impl WebSocket {
    pub(super) fn open(mut client: Client, host: &str) -> Result<Self, String> {
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let response = client.request(request).map_err(|f| format!("WebSocket: {f}"))?;
        if response.status != 101 {
            let why = response.text();
            return Err(format!("WebSocket: status {}: {}", response.status, why.trim()));
        }
        Ok(Self { client, sent: 0 })
    }

    /// Sends a message that no other is like, and reads it back.
    pub(super) fn echo(&mut self) -> Result<(), String> {
        self.sent += 1;
        let said = |what: &dyn std::fmt::Display| format!("message {}: {what}", self.sent);
        let message = format!("message {}", self.sent);
        self.client.try_send(frame(TEXT, message.as_bytes())).map_err(|e| said(&e))?;
        loop {
            match read(&mut self.client).map_err(|e| said(&e))? {
                (PING, _) => {}
                (TEXT, back) if back == message.as_bytes() => return Ok(()),
                (kind, _) => return Err(said(&format!("an answer of kind {kind}"))),
            }
        }
    }

    /// Closes it and waits for the other side to agree.
    pub(super) fn close(mut self) -> Result<(), String> {
        let said = |what: &dyn std::fmt::Display| format!("closing after {}: {what}", self.sent);
        self.client.try_send(frame(CLOSE, &1000_u16.to_be_bytes())).map_err(|e| said(&e))?;
        loop {
            match read(&mut self.client).map_err(|e| said(&e))? {
                (PING, _) => {}
                (CLOSE, _) => return Ok(()),
                (kind, _) => return Err(said(&format!("an answer of kind {kind}"))),
            }
        }
    }
}

/// A whole message of a client, masked by zeros, which leave it as it is.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short message");
    assert!(length <= SHORT_BYTES_MAX, "a short message");
    [&[FIN | kind, MASKED | length, 0, 0, 0, 0], payload].concat()
}

fn read(client: &mut Client) -> Result<(u8, Vec<u8>), Failure> {
    let head = client.read_exactly(2)?;
    let (first, length) = (head[0], head[1]);
    if first & FIN == 0 || length > SHORT_BYTES_MAX {
        return Err(Failure::Malformed(format!("frame {head:?}")));
    }
    Ok((first & !FIN, client.read_exactly(usize::from(length))?))
}
