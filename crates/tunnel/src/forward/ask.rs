//! What a program on a local port is asked, and told.
//!
//! Must not know how a connection is made.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{NotForwarded, Port, reset, socks5};
use crate::client::{ClientError, Protocol, To};
use crate::server::connect::{self, Head};

/// Where a program wants to go.
pub(super) struct Asked {
    pub(super) to: To,
    /// What it has sent behind its wish.
    pub(super) early: Bytes,
}

/// Finds out where a program wants to go. One that asks wrongly has been told so.
pub(super) async fn ask(port: &Port, program: &mut TcpStream) -> Result<Asked, NotForwarded> {
    match port {
        Port::Direct(to) => Ok(Asked { to: to.clone(), early: Bytes::new() }),
        Port::Socks5 { credentials, cluster } => {
            let address = socks5::ask(program, credentials.as_ref()).await?;
            let to = To { protocol: Protocol::Tcp, address, cluster: cluster.clone() };
            Ok(Asked { to, early: Bytes::new() })
        }
        Port::HttpConnect { cluster } => match connect::read_head(program).await? {
            Head::Connect { wish, rest, .. } => {
                let cluster = wish.cluster.or_else(|| cluster.clone());
                let to = To { protocol: Protocol::Tcp, address: wish.address, cluster };
                Ok(Asked { to, early: rest })
            }
            Head::Refused { status, text } => {
                connect::answer(program, status, text).await;
                Err(NotForwarded::Unasked(text))
            }
        },
    }
}

/// Tells a program that there is a connection.
pub(super) async fn granted(port: &Port, program: &mut TcpStream) -> std::io::Result<()> {
    match port {
        Port::Direct(_) => Ok(()),
        Port::Socks5 { .. } => program.write_all(&socks5::reply(socks5::GRANTED)).await,
        Port::HttpConnect { .. } => {
            program.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await
        }
    }
}

/// Tells a program that there is none, as well as its protocol can.
pub(super) async fn refused(port: &Port, mut program: TcpStream, error: &ClientError) {
    match port {
        Port::Direct(_) => reset(&program),
        Port::Socks5 { .. } => {
            // One that has gone hears nothing.
            let _ = program.write_all(&socks5::reply(socks5::code_of(error))).await;
            let _ = program.shutdown().await;
        }
        Port::HttpConnect { .. } => {
            connect::answer(program, status_of(error), &text_of(error)).await;
        }
    }
}

fn status_of(error: &ClientError) -> &'static str {
    match error.as_str() {
        "timeout" => "504 Gateway Timeout",
        "busy" => "503 Service Unavailable",
        _ => "502 Bad Gateway",
    }
}

/// The error with its causes.
fn text_of(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
