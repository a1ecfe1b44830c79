//! The connections between a server and an agent, all over one stream of packets: what each has to send and has
//! received, whose turn it is, and how much may still come. No IO, no clock: packets in, packets out.
//!
//! The wire of Konnectivity has no flow control of single connections, so that one whose payload nobody takes holds up
//! all others. Between ends that are both ours a receiver gives each connection [credit](Flow::Credit), and nobody
//! waits for another. With an original on the other side payload is [buffered](Flow::Buffered): beyond a bound nothing
//! more is taken from the stream as long as the connection gets on, and one that does not is closed alone.
//!
//! Both ends use this; who asks for connections is [`Side::Server`]. Must not know dials, sockets or gRPC. Start at
//! [`Link::receive`] and [`Link::next`].

mod queue;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::packet::Packet;
use queue::Queue;

/// Payload of one connection that waits to be sent; beyond it whoever brings it waits.
pub const OUTBOUND_BYTES_MAX: usize = 256 * 1024;
/// Payload of one connection that has arrived and nobody has taken, from a peer that knows no credit; beyond it the
/// stream is not read, or the connection closed.
pub const BUFFERED_BYTES_MAX: usize = 1024 * 1024;
/// The same for all connections of a stream together.
pub const BUFFERED_ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a connection may hold up the stream without taking anything.
pub const STALL_MAX: Duration = Duration::from_secs(1);
/// The credit that a connection begins with. Both ends know it.
pub const CREDIT_BYTES: usize = 256 * 1024;
/// The credit that one grows to where the way is long and its payload is taken as fast as it comes.
pub const CREDIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the credits of all connections may grow to together; each has [`CREDIT_BYTES`] in any case.
pub const CREDIT_ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Credit of which a portion is taken in so many round trips is less than a connection can use: it grows.
const CREDIT_ROUND_TRIPS: u32 = 2;
/// Credit of which a portion lasts for more round trips than this is more than a connection needs: it shrinks again.
const CREDIT_ROUND_TRIPS_MAX: u32 = 16;
/// What is given back at a time.
fn portion(window: usize) -> usize {
    window / 4 * 3
}

/// Packets other than payload that wait to be sent; a peer that causes more without reading them is cut off.
pub const CONTROL_PACKETS_MAX: usize = 64 * 1024;

/// Why the tunnel closes a connection itself.
const UNREAD: &str = "closed by the tunnel: what has arrived was not read";
const UNTAKEN: &str = "closed by the tunnel: what was sent was not taken";

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Asks for connections, and for their end with CLOSE_REQ.
    Server,
    /// Makes connections, and says with CLOSE_RSP that they have ended.
    Agent,
}

/// How what comes in is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Each connection has credit; ends of one direction are told (half-close). Only with a peer of ours.
    Credit,
    /// The wire as it is.
    Buffered,
}

/// Who is at this end of a connection, and wants to know when to go on.
pub trait Ends {
    /// There is something to be [read](Link::read).
    fn readable(&mut self);
    /// There is [room](Link::room) again, or never will be.
    fn writable(&mut self);
}

/// What a peer did that ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It sent more than it had credit for.
    #[error("the peer sent more on connection {0} than it had credit for")]
    BeyondCredit(i64),
    /// It gave a connection the number of another.
    #[error("the peer gave the number {0} to two connections")]
    NumberInUse(i64),
    /// It makes us answer and does not read the answers.
    #[error("{CONTROL_PACKETS_MAX} packets wait for a peer that does not read")]
    NotReading,
}

/// The connection is over for those who want to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Payload.
    Bytes(Bytes),
    /// Nothing yet: [`Ends::readable`] says when.
    Wait,
    /// Nothing more: the other side has said all.
    Finished,
    /// Nothing more: the connection is closed, and why if there is a reason.
    Closed(String),
}

/// What follows the payload that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Open,
    Finishing,
    Closing(String),
    /// All is sent.
    Finished,
    /// Closed, and the other side has yet to say so.
    Closed,
}

/// What follows the payload that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
enum In {
    Open,
    Finished,
    Closed(String),
}

#[derive(Debug)]
struct Connection<T> {
    ends: T,
    outbound: Queue,
    out: Out,
    /// What may still be sent.
    credit: u64,
    in_turns: bool,
    inbound: Queue,
    input: In,
    /// Nobody reads any more: what comes is dropped.
    deaf: bool,
    /// What may still come.
    allowance: u64,
    /// Taken, and not yet given back as credit.
    taken: usize,
    window: usize,
    /// When credit was given last.
    given: Option<Instant>,
    /// More waits than [`BUFFERED_BYTES_MAX`], since when nothing was taken.
    over: Option<Instant>,
    /// Closed here, and how much the other side had yet to take when [`Link::close_lingering`] last looked.
    lingering: Option<usize>,
}

impl<T> Connection<T> {
    fn has_something_to_send(&self) -> bool {
        if self.outbound.is_empty() {
            matches!(self.out, Out::Finishing | Out::Closing(_))
        } else {
            self.credit > 0
        }
    }
}

/// One stream's connections. `T` is who is at this end of each.
#[derive(Debug)]
pub struct Link<T> {
    side: Side,
    flow: Flow,
    connections: FxHashMap<i64, Connection<T>>,
    control: VecDeque<Packet>,
    turns: VecDeque<i64>,
    /// Payload that has arrived and waits.
    buffered: usize,
    /// Connections of which too much waits.
    over: usize,
    /// The sum of what windows have grown to beyond [`CREDIT_BYTES`].
    grown: usize,
    /// To the other side and back when nothing else is under way; zero where it is not known.
    round_trip: Duration,
    ended: bool,
}

impl<T: Ends> Link<T> {
    /// A new stream's.
    #[must_use]
    pub fn new(side: Side, flow: Flow) -> Self {
        Self {
            side,
            flow,
            connections: FxHashMap::default(),
            control: VecDeque::new(),
            turns: VecDeque::new(),
            buffered: 0,
            over: 0,
            grown: 0,
            round_trip: Duration::ZERO,
            ended: false,
        }
    }

    /// How what comes in is bounded.
    #[must_use]
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// Says how long a packet and its answer take when nothing else is under way: credit is measured by it.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// How many connections there are, those included that wait for the other side to confirm their end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Payload that has arrived and waits to be taken, of all connections.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// Where one has this number.
    pub fn open(&mut self, connection: i64, ends: T) -> Result<(), LinkError> {
        if self.connections.contains_key(&connection) {
            return Err(LinkError::NumberInUse(connection));
        }
        let (credit, allowance) = match self.flow {
            Flow::Credit => (CREDIT_BYTES as u64, CREDIT_BYTES as u64),
            Flow::Buffered => (u64::MAX, u64::MAX),
        };
        let input = if self.ended { In::Closed(String::new()) } else { In::Open };
        let new = Connection {
            ends,
            outbound: Queue::default(),
            out: Out::Open,
            credit,
            in_turns: false,
            inbound: Queue::default(),
            input,
            deaf: false,
            allowance,
            taken: 0,
            window: CREDIT_BYTES,
            given: None,
            over: None,
            lingering: None,
        };
        self.connections.insert(connection, new);
        Ok(())
    }

    /// Who is at this end of a connection.
    pub fn ends_mut(&mut self, connection: i64) -> Option<&mut T> {
        self.connections.get_mut(&connection).map(|connection| &mut connection.ends)
    }

    /// Queues a packet that is no connection's payload, ahead of all payload.
    ///
    /// # Errors
    /// Where too many wait.
    pub fn send(&mut self, packet: Packet) -> Result<(), LinkError> {
        if self.control.len() >= CONTROL_PACKETS_MAX {
            return Err(LinkError::NotReading);
        }
        self.control.push_back(packet);
        Ok(())
    }

    /// How many bytes of payload a connection takes now; 0 where one has to wait for [`Ends::writable`].
    ///
    /// # Errors
    /// Where the connection is over.
    pub fn room(&self, connection: i64) -> Result<usize, Closed> {
        let connection = self.writable(connection)?;
        Ok(OUTBOUND_BYTES_MAX.saturating_sub(connection.outbound.len()))
    }

    fn writable(&self, connection: i64) -> Result<&Connection<T>, Closed> {
        let open = |c: &&Connection<T>| c.out == Out::Open && !matches!(c.input, In::Closed(_));
        self.connections.get(&connection).filter(open).ok_or(Closed)
    }

    /// Queues payload of a connection. More than there is room for is taken too, for those who have it already.
    ///
    /// # Errors
    /// Where the connection is over.
    pub fn push(&mut self, connection: i64, bytes: Bytes) -> Result<(), Closed> {
        self.writable(connection)?;
        if let Some(found) = self.connections.get_mut(&connection) {
            found.outbound.push(bytes);
        }
        self.take_turn(connection);
        Ok(())
    }

    /// Says after all payload that nothing more comes in this direction. With a peer that does not know that, the
    /// whole connection ends.
    pub fn finish(&mut self, connection: i64) {
        if self.flow == Flow::Buffered {
            return self.close(connection, String::new());
        }
        if let Some(found) = self.connections.get_mut(&connection)
            && found.out == Out::Open
        {
            found.out = Out::Finishing;
            self.take_turn(connection);
        }
    }

    /// Ends a connection, after the payload that waits to be sent; who is at this end has nothing more to do with it.
    pub fn close(&mut self, connection: i64, reason: String) {
        let Some(found) = self.connections.get_mut(&connection) else { return };
        found.deaf = true;
        let dropped = found.inbound.clear();
        self.buffered -= dropped;
        if found.over.take().is_some() {
            self.over -= 1;
        }
        let over_by_both = found.out == Out::Finished && found.input == In::Finished;
        let gone = matches!(found.input, In::Closed(_)) && self.side == Side::Server;
        if over_by_both || gone || self.ended {
            return self.remove(connection);
        }
        let client_broke_off = self.side == Side::Server && !reason.is_empty();
        if matches!(found.input, In::Closed(_)) || client_broke_off {
            // Nobody reads it, or nobody may take it for complete.
            found.outbound.clear();
        }
        match found.out {
            // Both sides will have said all.
            Out::Finishing if found.input == In::Finished => {}
            Out::Open | Out::Finishing | Out::Finished => found.out = Out::Closing(reason),
            Out::Closing(_) | Out::Closed => {}
        }
        self.take_turn(connection);
    }

    /// Takes a connection away that the other side has never heard of.
    pub fn forget(&mut self, connection: i64) {
        self.remove(connection);
    }

    fn remove(&mut self, connection: i64) {
        if let Some(mut gone) = self.connections.remove(&connection) {
            self.grown -= gone.window - CREDIT_BYTES;
            self.buffered -= gone.inbound.clear();
            self.over -= usize::from(gone.over.is_some());
        }
    }

    fn take_turn(&mut self, connection: i64) {
        if let Some(found) = self.connections.get_mut(&connection)
            && !found.in_turns
            && found.has_something_to_send()
        {
            found.in_turns = true;
            self.turns.push_back(connection);
        }
    }

    /// Whether [`Self::next`] has something.
    #[must_use]
    pub fn has_next(&self) -> bool {
        !self.control.is_empty() || !self.turns.is_empty()
    }

    /// The next packet to be sent, with at most so much payload, which must not be 0: connections take turns.
    pub fn next(&mut self, payload_max: usize) -> Option<Packet> {
        if let Some(packet) = self.control.pop_front() {
            return Some(packet);
        }
        while let Some(number) = self.turns.pop_front() {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            connection.in_turns = false;
            let most = usize::try_from(connection.credit).unwrap_or(usize::MAX).min(payload_max);
            if let Some(bytes) = connection.outbound.take(most) {
                if self.flow == Flow::Credit {
                    connection.credit -= bytes.len() as u64;
                }
                if connection.outbound.len() < OUTBOUND_BYTES_MAX {
                    connection.ends.writable();
                }
                self.take_turn(number);
                return Some(Packet::Data { connection: number, bytes });
            }
            if !connection.outbound.is_empty() {
                continue;
            }
            match std::mem::replace(&mut connection.out, Out::Closed) {
                Out::Finishing => {
                    connection.out = Out::Finished;
                    if connection.deaf && connection.input == In::Finished {
                        self.remove(number);
                    }
                    return Some(Packet::Finish { connection: number });
                }
                // Only between ours can the server say that it is no orderly end.
                Out::Closing(error) if self.side == Side::Server => {
                    let connection = number;
                    let in_order = error.is_empty() || self.flow == Flow::Buffered;
                    return Some(if in_order {
                        Packet::CloseRequest { connection }
                    } else {
                        Packet::CloseResponse { error, connection }
                    });
                }
                Out::Closing(error) => {
                    self.remove(number);
                    return Some(Packet::CloseResponse { error, connection: number });
                }
                other => connection.out = other,
            }
        }
        None
    }

    /// Takes in a packet about a connection; others are passed over.
    ///
    /// # Errors
    /// What ends the stream.
    pub fn receive(&mut self, packet: Packet, now: Instant) -> Result<(), LinkError> {
        match packet {
            Packet::Data { connection, bytes } => self.receive_data(connection, bytes, now),
            Packet::Credit { connection, bytes } => {
                if self.flow == Flow::Credit
                    && let Some(found) = self.connections.get_mut(&connection)
                {
                    found.credit = found.credit.saturating_add(bytes);
                    self.take_turn(connection);
                }
                Ok(())
            }
            Packet::Finish { connection } => {
                if let Some(found) = self.connections.get_mut(&connection)
                    && found.input == In::Open
                {
                    found.input = In::Finished;
                    found.ends.readable();
                }
                Ok(())
            }
            Packet::CloseRequest { connection } => {
                self.receive_close(connection, String::new(), true)
            }
            Packet::CloseResponse { connection, error } => {
                self.receive_close(connection, error, false)
            }
            _ => Ok(()),
        }
    }

    fn receive_data(&mut self, number: i64, bytes: Bytes, now: Instant) -> Result<(), LinkError> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return match self.side {
                Side::Server => self.send(Packet::CloseRequest { connection: number }),
                Side::Agent => {
                    let error = "unrecognized connectID".to_owned();
                    self.send(Packet::CloseResponse { error, connection: number })
                }
            };
        };
        if self.flow == Flow::Credit {
            // It sends by credit that it has not read.
            if self.control.len() >= 2 * CONTROL_PACKETS_MAX {
                return Err(LinkError::NotReading);
            }
            let left = connection.allowance.checked_sub(bytes.len() as u64);
            connection.allowance = left.ok_or(LinkError::BeyondCredit(number))?;
        }
        if connection.deaf || connection.input != In::Open {
            return Ok(());
        }
        self.buffered += bytes.len();
        connection.inbound.push(bytes);
        let too_much = connection.inbound.len() > BUFFERED_BYTES_MAX;
        if self.flow == Flow::Buffered && too_much && connection.over.is_none() {
            connection.over = Some(now);
            self.over += 1;
        }
        connection.ends.readable();
        Ok(())
    }

    fn receive_close(&mut self, number: i64, error: String, asked: bool) -> Result<(), LinkError> {
        let Some(connection) = self.connections.get_mut(&number) else {
            let waits = asked || self.flow == Flow::Credit;
            if waits && self.side == Side::Agent {
                let error = "Unknown connectID".to_owned();
                return self.send(Packet::CloseResponse { error, connection: number });
            }
            return Ok(());
        };
        if connection.deaf && self.side == Side::Server {
            // The answer to our own wish, or both wished at once.
            self.remove(number);
            return Ok(());
        }
        if !matches!(connection.input, In::Closed(_)) {
            connection.input = In::Closed(error);
        }
        connection.outbound.clear();
        connection.ends.readable();
        connection.ends.writable();
        if connection.deaf {
            if connection.out == Out::Finishing {
                // It had all been said but for the end: now the other side waits for an answer.
                connection.out = Out::Closing(String::new());
            }
            self.take_turn(number);
        }
        Ok(())
    }

    /// Takes payload of a connection that has arrived, at most so much; the peer may send as much again.
    pub fn read(&mut self, number: i64, most: usize, now: Instant) -> Read {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Read::Closed(String::new());
        };
        let Some(bytes) = connection.inbound.take(most) else {
            return match &connection.input {
                In::Open | In::Finished if connection.deaf => Read::Closed(String::new()),
                In::Open => Read::Wait,
                In::Finished => Read::Finished,
                In::Closed(reason) => Read::Closed(reason.clone()),
            };
        };
        self.buffered -= bytes.len();
        if connection.over.is_some() {
            connection.over = Some(now);
            if connection.inbound.len() <= BUFFERED_BYTES_MAX / 2 {
                connection.over = None;
                self.over -= 1;
            }
        }
        if self.flow == Flow::Credit && connection.input == In::Open {
            self.give_credit(number, bytes.len(), now);
        }
        Read::Bytes(bytes)
    }

    /// Gives back what was taken, in portions of three quarters of a window: less is on its way at a time than with
    /// halves, and waits in front of what comes from the other side.
    ///
    /// A connection whose portion is taken within two round trips waits for credit and not for the way: it gets
    /// twice as much. More would only lie about in queues, in front of the payload of others; so what is far too much
    /// is not given back.
    fn give_credit(&mut self, number: i64, taken: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.taken += taken;
        if connection.taken < portion(connection.window) {
            return;
        }
        let mut bytes = std::mem::take(&mut connection.taken);
        let since = connection.given.replace(now).map(|then| now.saturating_duration_since(then));
        let within = |times| since.is_some_and(|since| since <= self.round_trip * times);
        let room = self.grown + connection.window <= CREDIT_ALL_BYTES_MAX;
        if within(CREDIT_ROUND_TRIPS) && connection.window < CREDIT_BYTES_MAX && room {
            bytes += connection.window;
            self.grown += connection.window;
            connection.window *= 2;
        } else if connection.window > CREDIT_BYTES && !within(CREDIT_ROUND_TRIPS_MAX) {
            connection.window /= 2;
            self.grown -= connection.window;
            bytes -= connection.window;
        }
        if bytes > 0 {
            connection.allowance += bytes as u64;
            // One for each portion that was taken: no peer can make these pile up.
            self.control.push_back(Packet::Credit { connection: number, bytes: bytes as u64 });
        }
    }

    /// Whether the stream must not be read on now.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.flow == Flow::Buffered && (self.over > 0 || self.buffered > BUFFERED_ALL_BYTES_MAX)
    }

    /// Closes the connections that hold up the stream and have taken nothing for [`STALL_MAX`]; how many. Where it is
    /// all together that is too much, those that hold most go.
    pub fn close_stalled(&mut self, now: Instant) -> usize {
        let stalled = |c: &Connection<T>| {
            c.over.is_some_and(|since| now.saturating_duration_since(since) >= STALL_MAX)
        };
        let mut found: Vec<i64> =
            self.connections.iter().filter(|(_, c)| stalled(c)).map(|(n, _)| *n).collect();
        if found.is_empty() && self.over == 0 && self.buffered > BUFFERED_ALL_BYTES_MAX {
            let most = self.connections.iter().max_by_key(|(_, c)| c.inbound.len());
            found.extend(most.map(|(number, _)| *number));
        }
        for number in &found {
            self.break_off(*number, UNREAD);
        }
        found.len()
    }

    /// Whether a connection is closed, and why if there is a reason; what has arrived may still be read.
    #[must_use]
    pub fn closed(&self, number: i64) -> Option<&str> {
        match self.connections.get(&number).map(|connection| &connection.input) {
            None => Some(""),
            Some(In::Closed(reason)) => Some(reason),
            Some(In::Open | In::Finished) => None,
        }
    }

    /// Whether the other side has closed a connection, or it is not there.
    #[must_use]
    pub fn is_closed(&self, connection: i64) -> bool {
        self.closed(connection).is_some()
    }

    /// Drops the payload of connections that are closed here and of which the other side has taken nothing since this
    /// was last called, so that the close goes out; how many.
    pub fn close_lingering(&mut self) -> usize {
        let mut found = Vec::new();
        for (number, connection) in &mut self.connections {
            let left = connection.outbound.len();
            let closing = matches!(connection.out, Out::Closing(_) | Out::Finishing);
            if connection.deaf
                && closing
                && left > 0
                && connection.lingering.replace(left) == Some(left)
            {
                connection.outbound.clear();
                connection.out = Out::Closing(UNTAKEN.to_owned());
                found.push(*number);
            }
        }
        found.iter().for_each(|number| self.take_turn(*number));
        found.len()
    }

    /// Closes a connection from between its ends: both are told.
    fn break_off(&mut self, number: i64, reason: &str) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let dropped = connection.inbound.clear();
        self.buffered -= dropped;
        if connection.over.take().is_some() {
            self.over -= 1;
        }
        connection.outbound.clear();
        connection.deaf = true;
        connection.input = In::Closed(reason.to_owned());
        if !matches!(connection.out, Out::Closing(_) | Out::Closed) {
            connection.out = Out::Closing(reason.to_owned());
        }
        connection.ends.readable();
        connection.ends.writable();
        self.take_turn(number);
    }

    /// The stream has ended: every connection is closed once what has arrived is read, and nothing is sent any more.
    pub fn end(&mut self, reason: &str) {
        self.ended = true;
        self.control.clear();
        self.turns.clear();
        for connection in self.connections.values_mut() {
            connection.outbound.clear();
            connection.in_turns = false;
            if !matches!(connection.input, In::Closed(_)) {
                connection.input = In::Closed(reason.to_owned());
            }
            connection.ends.readable();
            connection.ends.writable();
        }
        let deaf = self.connections.iter().filter(|(_, connection)| connection.deaf);
        let nobodys: Vec<i64> = deaf.map(|(number, _)| *number).collect();
        nobodys.into_iter().for_each(|number| self.remove(number));
    }
}

#[cfg(any(test, feature = "fuzzing"))]
mod books;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
