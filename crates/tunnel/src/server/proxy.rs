//! Clients that speak gRPC: one stream, one connection.
//!
//! Must not know how the other clients speak.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::Request;

use super::hub::{DialError, Hub};
use crate::carrier::Tunnelled;
use crate::grpc::{self, PacketReader, StreamError};
use crate::link::{Closed, Read};
use crate::packet::{Message, Packet};
use crate::{FEATURES, FEATURES_FIELD};

/// How long the first payload for a client waits after the answer to its dial, unless the client has spoken: the
/// original's library takes the answer on one thread and knows the connection on another, and ends a connection whose
/// payload it meets in between.
const FIRST_PAYLOAD_DELAY: Duration = Duration::from_millis(25);
/// Payload of a packet for a client.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// After the end of a connection, how long the client may take to read what it was sent.
const GOODBYE: Duration = Duration::from_secs(20);

/// What the client asked for first.
struct Asked {
    protocol: String,
    address: String,
    dial: i64,
}

/// Serves one call of a client until it ends. Dropped, its connection is closed.
pub(super) async fn serve(
    hub: Arc<Hub>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Message>,
) {
    let ours = request.headers().get(FEATURES_FIELD).is_some_and(|value| value == FEATURES);
    let Ok(out) = respond.send_response(grpc::response(), false) else { return };
    let mut client = Client { hub, packets: PacketReader::new(request.into_body()), out, ours };
    match client.run().await {
        Ok(()) => {
            let _ = client.out.send_trailers(grpc::trailers(grpc::OK, ""));
            let gone = poll_fn(|cx| client.out.poll_reset(cx));
            let _ = tokio::time::timeout(GOODBYE, gone).await;
        }
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a client's stream has ended"
            );
            let _ = client.out.send_trailers(grpc::trailers(grpc::UNKNOWN, &error.to_string()));
        }
    }
}

struct Client {
    hub: Arc<Hub>,
    packets: PacketReader,
    out: SendStream<Message>,
    /// Knows its connection before it reads on.
    ours: bool,
}

impl Client {
    async fn run(&mut self) -> Result<(), StreamError> {
        let Some(asked) = self.asked().await? else { return Ok(()) };
        let dial = asked.dial;
        let Some(answer) = self.dial(asked).await? else { return Ok(()) };
        let (error, tunnelled) = match answer {
            Ok(tunnelled) => (String::new(), Some(tunnelled)),
            Err(error) => (error.to_string(), None),
        };
        let connection = tunnelled.as_ref().map_or(0, Tunnelled::number);
        let told = self.send(&Packet::DialResponse { error, connection, dial });
        let Some(tunnelled) = tunnelled else { return told };
        let hub = self.hub.clone();
        let _life = hub.stats.establish();
        if told.is_err() {
            hub.stats.unsent_responses.add(1);
            return told;
        }
        let error = self.carry(tunnelled).await?;
        self.send(&Packet::CloseResponse { error, connection })
    }

    fn send(&mut self, packet: &Packet) -> Result<(), StreamError> {
        self.hub.stats.to_client.count(packet);
        let sent = self.out.send_data(Message::new(packet), false).map_err(StreamError::Http2);
        sent.inspect_err(|error| self.hub.stats.stream_failed("to_client", error, Some(packet)))
    }

    /// Waits for the request; what comes before it gets the original's answers. `None` where the client has gone.
    async fn asked(&mut self) -> Result<Option<Asked>, StreamError> {
        while let Some(packet) = next(&self.hub, &mut self.packets).await? {
            match packet {
                Packet::DialRequest { protocol, address, dial } => {
                    return Ok(Some(Asked { protocol, address, dial }));
                }
                Packet::Data { connection, .. } => {
                    let error = "backend not initialized".to_owned();
                    self.send(&Packet::CloseResponse { error, connection })?;
                    return Ok(None);
                }
                Packet::CloseDial { .. } => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits for a connection; `None` where the client does not want it any more.
    async fn dial(
        &mut self,
        asked: Asked,
    ) -> Result<Option<Result<Tunnelled, DialError>>, StreamError> {
        let hub = self.hub.clone();
        let mut answer = pin!(hub.dial(asked.protocol, asked.address));
        loop {
            let packet = tokio::select! {
                answer = &mut answer => return Ok(Some(answer)),
                packet = next(&hub, &mut self.packets) => packet?,
            };
            match packet {
                None | Some(Packet::CloseDial { .. } | Packet::CloseRequest { .. }) => {
                    hub.stats.dials_closed.add(1);
                    return Ok(None);
                }
                // No client sends payload before it has a connection.
                Some(_) => {}
            }
        }
    }

    /// Both directions, until one of them ends; why, if there is a reason.
    async fn carry(&mut self, tunnelled: Tunnelled) -> Result<String, StreamError> {
        let (spoke, hub) = (Cell::new(false), self.hub.clone());
        let mut down = Down {
            hub: &hub,
            spoke: &spoke,
            out: &mut self.out,
            tunnelled: &tunnelled,
            blocked: None,
            held_until: (!self.ours).then(|| Box::pin(tokio::time::sleep(FIRST_PAYLOAD_DELAY))),
        };
        let reason = {
            let mut up = pin!(up(&hub, &mut self.packets, &tunnelled, &spoke));
            poll_fn(|cx| {
                if let Poll::Ready(ended) = up.as_mut().poll(cx) {
                    return Poll::Ready(ended.map(|()| String::new()));
                }
                down.poll(cx)
            })
            .await
        };
        tunnelled.close(if reason.is_ok() { "" } else { "the client's stream broke off" });
        reason
    }
}

/// The client's next packet; `None` at the end. Dropped, nothing is lost.
async fn next(hub: &Hub, packets: &mut PacketReader) -> Result<Option<Packet>, StreamError> {
    let packet = packets.next().await;
    match &packet {
        Ok(Some(packet)) => hub.stats.from_client.count(packet),
        Ok(None) => {}
        Err(error) => hub.stats.stream_failed("from_client", error, None),
    }
    packet
}

/// Ready when the connection takes payload.
async fn room(hub: &Hub, tunnelled: &Tunnelled) -> Result<usize, Closed> {
    let mut full = None;
    poll_fn(|cx| {
        let room = tunnelled.poll_room(cx);
        if room.is_pending() && full.is_none() {
            full = Some(hub.stats.full_calls.count());
        }
        room
    })
    .await
}

/// From the client into the tunnel, until the client wants no more.
async fn up(
    hub: &Hub,
    packets: &mut PacketReader,
    tunnelled: &Tunnelled,
    spoke: &Cell<bool>,
) -> Result<(), StreamError> {
    while let Some(packet) = next(hub, packets).await? {
        spoke.set(true);
        match packet {
            Packet::Data { connection, bytes } if connection == tunnelled.number() => {
                if room(hub, tunnelled).await.is_err() || tunnelled.push(bytes).is_err() {
                    // How it ended is told from the other direction.
                    std::future::pending::<()>().await;
                }
            }
            // Without a number, as the original has it: dropped.
            Packet::Data { connection: 0, .. } => {}
            // One stream is one connection: anything else ends it.
            Packet::Data { .. } | Packet::CloseRequest { .. } | Packet::CloseDial { .. } => {
                return Ok(());
            }
            _ => {}
        }
    }
    Ok(())
}

/// From the tunnel to the client.
struct Down<'a> {
    hub: &'a Hub,
    /// The client has said something since it has its connection.
    spoke: &'a Cell<bool>,
    out: &'a mut SendStream<Message>,
    tunnelled: &'a Tunnelled,
    held_until: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    /// Since when the client takes nothing.
    blocked: Option<Instant>,
}

impl Down<'_> {
    /// Ready with the reason, if there is one, when nothing more comes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<String, StreamError>> {
        if let Some(sleep) = self.held_until.as_mut().filter(|_| !self.spoke.get()) {
            ready!(sleep.as_mut().poll(cx));
        }
        self.held_until = None;
        if let Poll::Ready(reset) = self.out.poll_reset(cx) {
            return self.failed(reset.map_or_else(StreamError::Http2, StreamError::Reset), None);
        }
        loop {
            if self.out.capacity() <= Message::OVERHEAD_BYTES_MAX {
                self.out.reserve_capacity(PAYLOAD_BYTES_MAX + Message::OVERHEAD_BYTES_MAX);
                match self.out.poll_capacity(cx) {
                    Poll::Pending => {
                        self.blocked.get_or_insert_with(Instant::now);
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => return self.failed(StreamError::Ended, None),
                    Poll::Ready(Some(Err(error))) => {
                        return self.failed(StreamError::Http2(error), None);
                    }
                    Poll::Ready(Some(Ok(_))) => continue,
                }
            }
            let most = (self.out.capacity() - Message::OVERHEAD_BYTES_MAX).min(PAYLOAD_BYTES_MAX);
            match ready!(self.tunnelled.poll_read(most, cx)) {
                Read::Bytes(bytes) => {
                    let packet = Packet::Data { connection: self.tunnelled.number(), bytes };
                    self.hub.stats.to_client.count(&packet);
                    let waited =
                        self.blocked.take().map_or(Duration::ZERO, |since| since.elapsed());
                    self.hub.stats.frontend_write.observe(waited);
                    if let Err(error) = self.out.send_data(Message::new(&packet), false) {
                        return self.failed(StreamError::Http2(error), Some(&packet));
                    }
                }
                // No client knows half a connection: the whole ends.
                Read::Finished => return Poll::Ready(Ok(String::new())),
                Read::Closed(reason) => return Poll::Ready(Ok(reason)),
                Read::Wait => {}
            }
        }
    }

    fn failed<T>(
        &self,
        error: StreamError,
        packet: Option<&Packet>,
    ) -> Poll<Result<T, StreamError>> {
        self.hub.stats.stream_failed("to_client", &error, packet);
        Poll::Ready(Err(error))
    }
}
