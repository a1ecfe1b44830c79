//! Clients that speak gRPC: one stream, one connection.
//!
//! Must not know how the other clients speak.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::http2::{Answer, Body, Call};

use super::hub::{DialError, Hub, Wish};
use crate::carrier::Tunnelled;
use crate::grpc::{self, Outgoing, PacketReader, PayloadSender, StreamError};
use crate::link::{Closed, Read};
use crate::packet::{Message, Packet};
use crate::{FEATURES, FEATURES_FIELD};

/// How long the first payload for a client waits after the answer to its dial, unless the client has spoken: the
/// original's library takes the answer on one thread and knows the connection on another, and ends a connection whose
/// payload it meets in between.
const FIRST_PAYLOAD_DELAY: Duration = Duration::from_millis(25);
/// After the end of a connection, how long the client may take to read what it was sent.
const GOODBYE: Duration = Duration::from_secs(20);

/// What the client asked for first.
struct Asked {
    wish: Wish,
    dial: i64,
}

/// Begins the answer to a call; `None` where the client has gone.
pub(super) fn begin(
    hub: Arc<Hub>,
    Call { head, body, mut answer }: Call<Message>,
) -> Option<Client> {
    let ours = head.get(FEATURES_FIELD) == Some(FEATURES.as_bytes());
    let mut head = grpc::client_head();
    if ours {
        head = head.field(FEATURES_FIELD, FEATURES.as_bytes());
    }
    answer.send_head(head, false).ok()?;
    if ours {
        // It waits for what we can.
        answer.flush();
    }
    let (packets, out) = (PacketReader::new(body), PayloadSender::new(answer));
    Some(Client { hub, packets, out, ours })
}

/// One call of a client.
pub(super) struct Client {
    hub: Arc<Hub>,
    packets: Packets,
    out: PayloadSender<Answer<Message>>,
    /// Knows its connection before it reads on, and half-close.
    ours: bool,
}

type Packets = PacketReader<Body<Message>>;

impl Client {
    /// Serves it until it ends. Dropped, its connection is closed.
    pub(super) async fn serve(mut self) {
        let hub = self.hub.clone();
        let _open = hub.stats.proxy_streams.count();
        match self.run().await {
            Ok(()) => {
                let _ = self.out.stream().send_end(Some(grpc::client_end(grpc::OK, "")));
                let gone = poll_fn(|cx| self.out.poll_gone(cx));
                let _ = tokio::time::timeout(GOODBYE, gone).await;
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a client's stream has ended"
                );
                let trailers = grpc::client_end(grpc::UNKNOWN, &error.to_string());
                let _ = self.out.stream().send_end(Some(trailers));
            }
        }
    }

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
        let sent = self.out.stream().send(Message::new(packet));
        sent.inspect_err(|error| self.hub.stats.stream_failed("to_client", error, Some(packet)))
    }

    /// Waits for the request; what comes before it gets the original's answers. `None` where the client has gone.
    async fn asked(&mut self) -> Result<Option<Asked>, StreamError> {
        while let Some(packet) = next(&self.hub, &mut self.packets).await? {
            match packet {
                Packet::DialRequest { protocol, address, dial } => {
                    let wish = Wish::of_request(protocol, address);
                    return Ok(Some(Asked { wish, dial }));
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
        // It goes with its memory.
        let mut answer = Box::pin(hub.dial(asked.wish));
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

    /// Both directions, until the connection ends; why, if there is a reason.
    async fn carry(&mut self, tunnelled: Tunnelled) -> Result<String, StreamError> {
        let (said, hub) = (Said::default(), self.hub.clone());
        let mut down = Down {
            hub: &hub,
            said: &said,
            out: &mut self.out,
            tunnelled: &tunnelled,
            given: false,
            blocked: None,
            held_until: (!self.ours).then(|| Box::pin(tokio::time::sleep(FIRST_PAYLOAD_DELAY))),
            tells_half: self.ours,
            ended: false,
        };
        let reason = {
            let client = Up { hub: &hub, tunnelled: &tunnelled, said: &said, ours: self.ours };
            let mut up = pin!(client.run(&mut self.packets));
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
async fn next(hub: &Hub, packets: &mut Packets) -> Result<Option<Packet>, StreamError> {
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

/// What a client has said since it has its connection.
#[derive(Debug, Default)]
struct Said {
    anything: Cell<bool>,
    /// That nothing more comes.
    finish: Cell<bool>,
}

/// From the client into the tunnel.
struct Up<'a> {
    hub: &'a Hub,
    tunnelled: &'a Tunnelled,
    said: &'a Said,
    ours: bool,
}

impl Up<'_> {
    /// Until the client wants no more.
    async fn run(&self, packets: &mut Packets) -> Result<(), StreamError> {
        let number = self.tunnelled.number();
        while let Some(packet) = next(self.hub, packets).await? {
            self.said.anything.set(true);
            match packet {
                Packet::Data { connection, bytes } if connection == number => {
                    if room(self.hub, self.tunnelled).await.is_err()
                        || self.tunnelled.push(bytes).is_err()
                    {
                        // How it ended is told from the other direction.
                        std::future::pending::<()>().await;
                    }
                }
                // Without a number, as the original has it: dropped.
                Packet::Data { connection: 0, .. } => {}
                Packet::Finish { connection } if self.ours && connection == number => {
                    self.said.finish.set(true);
                    self.tunnelled.finish();
                }
                // One stream is one connection: anything else ends it.
                Packet::Data { .. } | Packet::CloseRequest { .. } | Packet::CloseDial { .. } => {
                    return Ok(());
                }
                _ => {}
            }
        }
        // One of ours says that it closes.
        if self.ours { Err(StreamError::Ended) } else { Ok(()) }
    }
}

/// From the tunnel to the client.
struct Down<'a> {
    hub: &'a Hub,
    said: &'a Said,
    out: &'a mut PayloadSender<Answer<Message>>,
    tunnelled: &'a Tunnelled,
    held_until: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    /// The client knows half a connection.
    tells_half: bool,
    /// It has been told that nothing more comes.
    ended: bool,
    /// There is payload on its way.
    given: bool,
    /// Since when the client takes nothing of it.
    blocked: Option<Instant>,
}

impl Down<'_> {
    /// Ready with the reason, if there is one, when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<String, StreamError>> {
        if let Some(sleep) = self.held_until.as_mut().filter(|_| !self.said.anything.get()) {
            ready!(sleep.as_mut().poll(cx));
        }
        self.held_until = None;
        if let Poll::Ready(error) = self.out.poll_gone(cx) {
            return self.failed(error, None);
        }
        let connection = self.tunnelled.number();
        loop {
            if let Err(error) = ready!(self.poll_sent(connection, cx)) {
                return self.failed(error, None);
            }
            if self.ended {
                if self.said.finish.get() {
                    return Poll::Ready(Ok(String::new()));
                }
                return self.tunnelled.poll_closed(cx).map(Ok);
            }
            match ready!(self.tunnelled.poll_read(grpc::PAYLOAD_BYTES_MAX, cx)) {
                Read::Bytes(bytes) => {
                    self.out.give(bytes);
                    self.given = true;
                }
                Read::Finished if self.tells_half => {
                    let packet = Packet::Finish { connection };
                    self.hub.stats.to_client.count(&packet);
                    if let Err(error) = self.out.stream().send(Message::new(&packet)) {
                        return self.failed(error, Some(&packet));
                    }
                    self.ended = true;
                }
                // The others know no half of a connection: the whole ends.
                Read::Finished => return Poll::Ready(Ok(String::new())),
                Read::Closed(reason) => return Poll::Ready(Ok(reason)),
                Read::Wait => {}
            }
        }
    }

    /// Ready when what was given is on its way.
    fn poll_sent(
        &mut self,
        connection: i64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let count = |packet: &Packet| self.hub.stats.to_client.count(packet);
        let sent = self.out.poll_empty(connection, cx, count);
        if sent.is_pending() {
            self.blocked.get_or_insert_with(Instant::now);
        } else if std::mem::take(&mut self.given) {
            let waited = self.blocked.take().map_or(Duration::ZERO, |since| since.elapsed());
            self.hub.stats.frontend_write.observe(waited);
        }
        sent
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
