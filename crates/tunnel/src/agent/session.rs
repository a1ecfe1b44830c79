//! A stream to one server: made, then served until it ends.
//!
//! Must not know which servers there are, nor when to connect.

use std::sync::Arc;
use std::time::Duration;

use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use net::dial::DialError;
use tls::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::dial::{self, Targets};
use super::{Address, Agent};
use crate::buffered::Buffered;
use crate::carrier::{Carrier, CarrierError};
use crate::grpc::{self, PacketReader};
use crate::link::{Flow, Side};
use crate::packet::{Message, Packet};
use crate::{AGENT_FIELD, FEATURES, FEATURES_FIELD, http2};

/// TCP and TLS together, and then as long again for HTTP/2 and the server's word.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the end of a stream to a server that is known already may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections through one stream at a time.
const CONNECTIONS_MAX: usize = 65_536;

/// Why there is no stream to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No TCP connection.
    #[error("the server cannot be reached")]
    Dial(#[from] DialError),
    /// No TLS.
    #[error("no TLS with the server")]
    Tls(#[from] tls::ConnectError),
    /// No HTTP/2, or it failed.
    #[error("HTTP/2 with the server failed")]
    Http2(#[from] h2::Error),
    /// The token's file.
    #[error("the service account's token cannot be read")]
    Token(#[source] std::io::Error),
    /// A flag's value cannot be said.
    #[error("{0} cannot stand in a header field")]
    Field(&'static str),
    /// It took too long.
    #[error("the server did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// The server's answer is not one of a Konnectivity server.
    #[error("the server's answer: {0}")]
    Answer(String),
}

impl ConnectError {
    /// As a metric's label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Dial(_) => "unreachable",
            Self::Tls(error) => error.as_str(),
            Self::Http2(_) => "http2",
            Self::Token(_) => "token",
            Self::Field(_) => "field",
            Self::Timeout => "timeout",
            Self::Answer(_) => "answer",
        }
    }
}

/// How servers are reached, other than in simulations.
type Io = ClientStream<Buffered<TcpStream>>;
type Connection<S> = h2::client::Connection<S, Message>;

/// Where to, and for which of the agent's carriers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'a> {
    pub(crate) address: &'a Address,
    pub(crate) carrier: usize,
}

/// What came of connecting.
pub(crate) enum Attempt<S> {
    /// A stream to a server that there was none to.
    New(Box<Session<S>>),
    /// There is one to this server already.
    Known(String),
}

/// One stream.
pub(crate) struct Session<S> {
    server: String,
    /// Which of the agent's carriers this is.
    number: usize,
    flow: Flow,
    /// Runs the connection; nothing moves without it.
    connection: Connection<S>,
    out: SendStream<Message>,
    incoming: RecvStream,
}

/// Connects to whatever server is behind an address. Dropped, the connection is closed.
pub(super) async fn connect(agent: &Agent, aim: Aim<'_>) -> Result<Attempt<Io>, ConnectError> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(agent, aim.address)).await;
    begin(agent, opened.map_err(|_| ConnectError::Timeout)??, aim).await
}

async fn open(agent: &Agent, address: &Address) -> Result<Io, ConnectError> {
    let stream = agent.dialer.connect_tcp(&address.target, CONNECT_TIMEOUT).await?;
    http2::keep_queue_short(&stream);
    let tls = agent.settings.tls.load_full();
    let stream = tls.connect(Buffered::new(stream), &address.name).await?;
    stream.io().bundle_writes();
    Ok(stream)
}

/// Begins a stream on a connection to a server. Dropped, the connection is closed.
pub(crate) async fn begin<S>(agent: &Agent, io: S, aim: Aim<'_>) -> Result<Attempt<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let begun = tokio::time::timeout(CONNECT_TIMEOUT, speak(agent, io, aim)).await;
    begun.map_err(|_| ConnectError::Timeout)?
}

async fn speak<S>(agent: &Agent, io: S, aim: Aim<'_>) -> Result<Attempt<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut send, mut connection) = handshake(io).await?;
    let request = request(agent, aim.address)?;
    let (answer, out) = send.send_request(request, false)?;
    let answer = tokio::select! {
        answer = answer => answer?,
        ended = &mut connection => {
            ended?;
            return Err(ConnectError::Answer("the connection was closed".to_owned()));
        }
    };
    let (server, count) = said(answer.status(), answer.headers())?;
    let ours = answer.headers().get(FEATURES_FIELD).is_some_and(|value| value == FEATURES);
    let flow = if ours { Flow::Credit } else { Flow::Buffered };
    let carrier = aim.carrier;
    if !agent.enter(&server, count, ours, carrier) {
        drop(send);
        leave(connection, out, answer.into_body()).await;
        return Ok(Attempt::Known(server));
    }
    tracing::info!(server, servers = count, carrier, ?flow, "a stream to a server");
    let incoming = answer.into_body();
    Ok(Attempt::New(Box::new(Session { server, number: carrier, flow, connection, out, incoming })))
}

/// Ends a stream in order that has only just begun.
async fn leave<S>(
    mut connection: Connection<S>,
    mut out: SendStream<Message>,
    mut incoming: RecvStream,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A server that has gone meanwhile needs no word.
    let _ = out.send_data(Message::default(), true);
    let end = async {
        tokio::select! {
            _ = &mut connection => return,
            () = async { while let Some(Ok(_)) = incoming.data().await {} } => {}
        }
        drop((out, incoming));
        let _ = connection.await;
    };
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, end).await;
}

async fn handshake<S>(io: S) -> Result<(SendRequest<Message>, Connection<S>), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(http2::CARRIER_WINDOW_BYTES)
        .initial_connection_window_size(http2::CARRIER_WINDOW_BYTES)
        .max_frame_size(http2::FRAME_BYTES_MAX)
        .max_send_buffer_size(http2::SEND_BUFFER_BYTES)
        .data_frame_budget(http2::SMALL_FRAMES_BYTES_MAX)
        .max_header_list_size(grpc::HEADER_BYTES_MAX)
        .enable_push(false);
    Ok(builder.handshake(io).await?)
}

fn request(agent: &Agent, address: &Address) -> Result<http::Request<()>, ConnectError> {
    let settings = &agent.settings;
    let mut fields = HeaderMap::new();
    let value =
        |text: &str, what| HeaderValue::from_str(text).map_err(|_| ConnectError::Field(what));
    fields.insert("agentid", value(&settings.agent_id, "the agent's ID")?);
    let identifiers = settings.identifiers.to_string();
    fields.insert("agentidentifiers", value(&identifiers, "the agent's identifiers")?);
    if let Some(token) = (settings.token)().map_err(ConnectError::Token)? {
        let mut bearer = value(&format!("Bearer {token}"), "the service account's token")?;
        bearer.set_sensitive(true);
        fields.insert("authorization", bearer);
    }
    if settings.extensions {
        fields.insert(FEATURES_FIELD, HeaderValue::from_static(FEATURES));
        fields.insert(AGENT_FIELD, HeaderValue::from(agent.settings.process));
    }
    let authority = address.target.to_string();
    grpc::request(grpc::CONNECT, &authority, fields).ok_or(ConnectError::Field("the server's name"))
}

/// The server's name and how many there are.
fn said(status: http::StatusCode, fields: &HeaderMap) -> Result<(String, usize), ConnectError> {
    let answer = |text: String| ConnectError::Answer(text);
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    if status != http::StatusCode::OK {
        return Err(answer(format!("status {}", status.as_u16())));
    }
    if let Some(code) = text("grpc-status").filter(|code| *code != "0") {
        let message = text("grpc-message").unwrap_or_default();
        return Err(answer(format!("gRPC status {code}: {message:.200}")));
    }
    let only = |name: &str| {
        let mut all = fields.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(value), None) => value.to_str().ok().map(str::to_owned),
            _ => None,
        }
    };
    let id = only("serverid").ok_or_else(|| answer("expected exactly one serverID".to_owned()))?;
    let count = only("servercount").and_then(|count| count.parse().ok());
    let count = count.ok_or_else(|| answer("expected a number as serverCount".to_owned()))?;
    Ok((id, count))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Serves the stream until it ends. Dropped, it is closed, and its connections with it.
    pub(crate) async fn run(self, agent: &Arc<Agent>, targets: impl Targets) {
        let Self { server, number, flow, mut connection, mut out, incoming } = self;
        let round_trip = http2::RoundTrip::default();
        let carrier = Carrier::new(Side::Agent, flow, round_trip.clone());
        // Originals do not like to be asked often, and their streams have no credit.
        let watch = http2::Watch {
            keepalive: agent.settings.keepalive,
            round_trip: (flow == Flow::Credit).then_some(round_trip),
        };
        let _present = Present { agent, server: &server, number, carrier: &carrier };
        let pings = connection.ping_pong();
        let mut packets = PacketReader::new(incoming);
        let mut draining = agent.draining.subscribe();
        let drain = say_when_draining(&mut draining, &carrier);
        let stats = &agent.stats;
        let failed = |error: grpc::StreamError| {
            stats.stream_failed("from_server", "to_agent", &error);
            CarrierError::Stream(error)
        };
        let ended: Result<(), CarrierError> = tokio::select! {
            ended = receive(agent, &targets, &carrier, &mut packets) => {
                ended.inspect_err(|error| {
                    if let CarrierError::Stream(error) = error {
                        stats.stream_failed("from_server", "to_agent", error);
                    }
                })
            }
            error = carrier.run_sender(&mut out, |packet| stats.to_server.count(packet)) => {
                stats.stream_failed("to_server", "from_agent", &error);
                Err(error.into())
            }
            ended = connection => ended.map_err(|error| failed(grpc::StreamError::Http2(error))),
            () = watch.run(pings) => Err(failed(grpc::StreamError::Ended)),
            () = drain => Ok(()),
        };
        match ended {
            Ok(()) => tracing::info!(server, "a server has ended its stream"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(server, error, "a stream to a server has ended");
            }
        }
    }
}

/// Never ready.
async fn say_when_draining(draining: &mut watch::Receiver<bool>, carrier: &Carrier) {
    if draining.wait_for(|draining| *draining).await.is_ok() {
        // A stream with too many packets ends by itself.
        let _ = carrier.send(Packet::Drain);
    }
    std::future::pending::<()>().await;
}

/// Takes the server away when the stream is over, however that came.
struct Present<'a> {
    agent: &'a Agent,
    server: &'a str,
    number: usize,
    carrier: &'a Carrier,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.agent.leave(self.server, self.number);
        self.carrier.end("the server has gone");
    }
}

async fn receive(
    agent: &Arc<Agent>,
    targets: &impl Targets,
    carrier: &Arc<Carrier>,
    packets: &mut PacketReader,
) -> Result<(), CarrierError> {
    // 0 is no connection's number.
    let mut last = 0;
    while let Some(packet) = carrier.next(packets).await? {
        agent.stats.from_server.count(&packet);
        match packet {
            Packet::DialRequest { protocol, address, dial } => {
                if carrier.connections() >= CONNECTIONS_MAX {
                    let error = "too many open connections".to_owned();
                    carrier.send(Packet::DialResponse { error, connection: 0, dial })?;
                    continue;
                }
                last += 1;
                let tunnelled = carrier.open(last)?;
                let asked = dial::Asked { protocol, address, dial };
                let stream = (carrier.clone(), tunnelled);
                let connection = dial::serve(agent.clone(), targets.clone(), stream, asked);
                drop(net::task::spawn_local("tunnel target", connection));
            }
            Packet::DialResponse { .. } | Packet::CloseDial { .. } | Packet::Drain => {}
            other => carrier.receive(other)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn a_server_says_its_name_and_their_number_once() {
        let fields = |pairs: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in pairs {
                fields.append(*name, HeaderValue::from_static(value));
            }
            fields
        };
        let good = fields(&[("serverid", "s"), ("servercount", "3")]);
        assert_eq!(said(StatusCode::OK, &good).unwrap(), ("s".to_owned(), 3));
        assert!(said(StatusCode::BAD_GATEWAY, &good).is_err());
        for (pairs, expected) in [
            (&[("servercount", "3")][..], "serverID"),
            (&[("serverid", "s")], "serverCount"),
            (&[("serverid", "s"), ("servercount", "many")], "serverCount"),
            (&[("serverid", "s"), ("serverid", "t"), ("servercount", "3")], "serverID"),
            (&[("grpc-status", "2"), ("grpc-message", "no%20way")], "no%20way"),
        ] {
            let error = said(StatusCode::OK, &fields(pairs)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
