//! One call's stream, in both directions, and all of a connection.
//!
//! Must not know frames: [`crate::Core`] says what came and what goes.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use crate::flow::{ReceiveWindow, SendWindow};
use crate::head::{Block, Head};
use crate::{Error, Payload};

/// Pieces of payload that are shorter are put together, so that many small frames hold little more than they bring.
const PIECE_BYTES_MIN: usize = 4096;

/// Who serves a call, and wants to know when there is something for it.
pub trait Ends: Default {
    /// Payload, the end or an error is there to be read.
    fn readable(&mut self);
    /// More can be sent, or the stream is over.
    fn writable(&mut self);
}

/// How far an answer is.
#[derive(Debug)]
pub(crate) enum Sending {
    /// Its head was not given.
    Nothing,
    /// Payload may follow.
    Open,
    /// All was given: behind what is queued comes the end, with trailers if there are any.
    Ending(Option<Block>),
    /// The end has gone out.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Stream<P, E> {
    pub(crate) ends: E,
    /// Of the two ends, how many are held by somebody; and whether the one is that reads.
    pub(crate) handles: u8,
    pub(crate) is_read: bool,
    /// Somebody has been told of it.
    pub(crate) accepted: bool,
    pub(crate) incoming: VecDeque<BytesMut>,
    pub(crate) trailers: Option<Box<Head>>,
    /// More may come.
    pub(crate) receiving: bool,
    pub(crate) window: ReceiveWindow,
    /// What has come, its frames' padding included, and was not given back.
    pub(crate) held: u32,
    /// What the body says is still to come of it.
    pub(crate) length_left: Option<u64>,
    pub(crate) sending: Sending,
    /// Waits for something to go out with.
    pub(crate) head: Option<Block>,
    pub(crate) queue: VecDeque<P>,
    pub(crate) queued: usize,
    pub(crate) send_window: SendWindow,
    /// It stands in the round of those that have something to send.
    pub(crate) in_round: bool,
    /// It stands among those whose window is to be given back.
    pub(crate) update_due: bool,
    pub(crate) error: Option<Error>,
}

impl<P: Payload, E: Ends> Stream<P, E> {
    pub(crate) fn new(window: ReceiveWindow, send_window: SendWindow) -> Self {
        Self {
            ends: E::default(),
            handles: 0,
            is_read: true,
            accepted: false,
            incoming: VecDeque::new(),
            trailers: None,
            receiving: true,
            window,
            held: 0,
            length_left: None,
            sending: Sending::Nothing,
            head: None,
            queue: VecDeque::new(),
            queued: 0,
            send_window,
            in_round: false,
            update_due: false,
            error: None,
        }
    }

    /// Keeps payload for who reads.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        match self.incoming.back_mut() {
            Some(last) if last.len() + piece.len() <= PIECE_BYTES_MIN => {
                last.extend_from_slice(piece);
            }
            _ => self.incoming.push_back(BytesMut::from(piece)),
        }
        self.ends.readable();
    }

    /// It is over; what has come can still be read.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.error.is_none() {
            self.error = Some(error);
        }
        self.receiving = false;
        self.head = None;
        self.queue = VecDeque::new();
        self.ends.readable();
        self.ends.writable();
    }

    /// Whether anything is left to be sent.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn has_output(&self) -> bool {
        self.queued > 0 || matches!(self.sending, Sending::Ending(_))
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.sending, Sending::Ended)
    }
}

/// All streams of a connection that are not over, or whose ends somebody holds. The numbers are the client's choice: a
/// tree does not mind which.
pub(crate) type Streams<P, E> = BTreeMap<u32, Box<Stream<P, E>>>;
