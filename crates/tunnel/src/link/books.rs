//! What holds for a link whenever nobody is at work in it: for tests and fuzzing.

use super::{
    BUFFERED_ALL_BYTES_MAX, BUFFERED_BYTES_MAX, CONTROL_PACKETS_MAX, CREDIT_ALL_BYTES_MAX,
    CREDIT_BYTES, CREDIT_BYTES_MAX, Connection, Flow, In, Link, OUTBOUND_BYTES_MAX, Out, portion,
};

/// The longest payload that arrives in one packet here.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest piece that is pushed: a frame of HTTP/2.
const PIECE_BYTES_MAX: usize = 128 * 1024;

impl<T> Link<T> {
    /// Looks through the books.
    pub(crate) fn check(&self) {
        let all = || self.connections.values();
        let sum = |of: fn(&Connection<T>) -> usize| all().map(of).sum::<usize>();
        assert_eq!(self.buffered, sum(|c| c.inbound.len()));
        assert_eq!(self.over, sum(|c| usize::from(c.over.is_some())));
        assert_eq!(self.grown, sum(|c| c.window - CREDIT_BYTES));
        assert!(self.grown <= CREDIT_ALL_BYTES_MAX, "{} bytes of credit", self.grown);
        // Beyond twice the bound nothing is taken in, but what is there may be read: a credit for each portion.
        let credits = BUFFERED_ALL_BYTES_MAX / portion(CREDIT_BYTES);
        assert!(self.control.len() <= 2 * CONTROL_PACKETS_MAX + credits);
        for (number, connection) in &self.connections {
            assert!(!connection.in_turns || self.turns.contains(number), "{number} has no turn");
            connection.check(*number, self.flow, self.ended);
        }
    }
}

impl<T> Connection<T> {
    fn check(&self, number: i64, flow: Flow, link_ended: bool) {
        self.inbound.check();
        self.outbound.check();
        assert!((CREDIT_BYTES..=CREDIT_BYTES_MAX).contains(&self.window));
        // Who has a piece already may push it whole.
        let most = OUTBOUND_BYTES_MAX + PIECE_BYTES_MAX;
        assert!(self.outbound.len() <= most, "{number}: {} to send", self.outbound.len());
        let most = match flow {
            Flow::Credit => self.window,
            Flow::Buffered => BUFFERED_BYTES_MAX + PAYLOAD_BYTES_MAX,
        };
        assert!(self.inbound.len() <= most, "{number}: {} wait", self.inbound.len());
        if flow == Flow::Credit && self.input == In::Open && !self.deaf {
            let all = self.inbound.len() as u64 + self.taken as u64 + self.allowance;
            assert_eq!(all, self.window as u64, "{number}: credit was lost or made");
        }
        assert!(!self.deaf || self.inbound.is_empty(), "{number}: nobody will read");
        let over = flow == Flow::Buffered && self.inbound.len() > BUFFERED_BYTES_MAX;
        assert!(!over || self.over.is_some(), "{number}: too much, and nobody knows since when");
        // What can be sent has its turn: else it would never go out.
        let stuck = self.has_something_to_send() && !self.in_turns && !link_ended;
        let told = matches!(self.input, In::Closed(_)) && !self.deaf && self.out == Out::Finishing;
        assert!(!stuck || told, "{number}: has something to send and no turn: {:?}", self.out);
    }
}
