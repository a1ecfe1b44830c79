//! A connection for a request: to the endpoint whose turn it is, or to another where that one keeps it waiting.
//!
//! Two things end the wait for an endpoint before its time is up: it leaves (a new program has it no more, or its
//! health check found it down), or it is slow, and a second one that is asked beside it is faster. Both cost the usual
//! request nothing: it goes out on an idle connection. Must not know what is sent.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use balance::{InFlight, Tried};

use super::attempt::{Attempt, Failed, Retry};
use super::connection::{ConnectError, Connection, Security};
use super::failure::Failure;
use super::upstream::{Endpoint, SecondDial};

/// An endpoint that is not reached within this time is not waited for alone. A lost first packet costs a second, a host
/// that is gone the whole connect timeout; RFC 8305 section 5 has 250 ms for the addresses of one host.
const SECOND_DIAL_AFTER: Duration = Duration::from_millis(250);

/// An endpoint that was picked for a request.
pub(crate) struct Picked {
    /// Its place in the upstream that it was picked from.
    pub(crate) index: usize,
    pub(crate) endpoint: Rc<Endpoint>,
    _in_flight: InFlight,
}

/// Who got the connection.
type Opened = (Picked, Box<Connection>);

impl Attempt<'_> {
    /// Goes on with the upstream as it is now, if it has changed and is still there; what was tried is kept.
    pub(crate) fn renew(&mut self, tried: &mut Tried) {
        let newest = self.worker.newest(&self.upstream.source.model.name);
        if let Some(newest) = newest.filter(|newest| !Rc::ptr_eq(newest, &self.upstream)) {
            *tried = newest.renewed(&self.upstream, tried);
            self.upstream = newest;
        }
    }

    /// The endpoint whose turn it is, among those that can serve and were not tried.
    pub(crate) fn pick(&self, tried: &Tried) -> Option<Picked> {
        let mut rng = self.worker.rng.borrow_mut();
        let client = self.outgoing.client.ip;
        let (index, endpoint, in_flight) = self.upstream.pick(&mut rng, client, tried)?;
        // What failed already would fail again.
        (!tried.contains(index)).then_some(Picked { index, endpoint, _in_flight: in_flight })
    }

    /// A connection to the endpoint; an idle one, unless it has to be `fresh`. With `leeway` one to another endpoint,
    /// where this one leaves or is slow. Whoever failed is added to `tried`. Dropped, nothing is left.
    pub(crate) async fn connect(
        &self,
        picked: Picked,
        fresh: bool,
        leeway: bool,
        tried: &mut Tried,
    ) -> Result<Opened, Failed> {
        let idle = if fresh { None } else { picked.endpoint.take_idle(self.is_replayable()) };
        match idle {
            Some(connection) => Ok((picked, connection)),
            // What is rare is boxed, so that the usual exchange stays small: it is moved into its task as a whole.
            None if leeway => Box::pin(self.open_first(picked, tried)).await,
            None => match Box::pin(self.open(&picked.endpoint, &Cell::default())).await {
                Ok(connection) => Ok((picked, connection)),
                Err(failure) => {
                    tried.add(picked.index);
                    Err((failure, None))
                }
            },
        }
    }

    /// Opens a connection; after a while also one to another endpoint, and takes whichever is there first.
    async fn open_first(&self, first: Picked, tried: &mut Tried) -> Result<Opened, Failed> {
        let opened = {
            let reached = Cell::new(false);
            let mut opening = pin!(self.open_while_there(&first.endpoint, *tried, &reached));
            match tokio::time::timeout(SECOND_DIAL_AFTER, opening.as_mut()).await {
                Ok(opened) => opened.map(|connection| (None, connection)),
                // It is there, and busy with TLS: another one may be as far away.
                Err(_) if reached.get() => opening.await.map(|connection| (None, connection)),
                Err(_) => {
                    tried.add(first.index);
                    self.beside(opening, tried).await
                }
            }
        };
        match opened {
            Ok((second, connection)) => Ok((second.unwrap_or(first), connection)),
            Err(failure) => {
                tried.add(first.index);
                // Nothing was sent, so any request may go elsewhere.
                Err((failure, Some(Retry::Elsewhere)))
            }
        }
    }

    /// Waits for the connection being opened, and for one to another endpoint if there is one to ask and not too many
    /// wait like this. The other endpoint is given where it was first.
    async fn beside(
        &self,
        opening: impl Future<Output = Result<Box<Connection>, Failure>> + Unpin,
        tried: &mut Tried,
    ) -> Result<(Option<Picked>, Box<Connection>), Failure> {
        let second = SecondDial::begin(&self.upstream).zip(self.pick(tried));
        let Some((_counted, second)) = second else {
            return opening.await.map(|connection| (None, connection));
        };
        self.upstream.cells.retries.add("slow");
        if let Some(connection) = second.endpoint.take_idle(self.is_replayable()) {
            self.abandoned();
            return Ok((Some(second), connection));
        }
        let raced = {
            let reached = Cell::default();
            let other = pin!(self.open_while_there(&second.endpoint, *tried, &reached));
            self.race(opening, other).await
        };
        match raced {
            Ok((connection, is_second)) => Ok((is_second.then_some(second), connection)),
            Err(failure) => {
                tried.add(second.index);
                Err(failure)
            }
        }
    }

    /// Whichever connection is there first, and whether it is the second; a failure where both fail, that of the later.
    async fn race(
        &self,
        mut one: impl Future<Output = Result<Box<Connection>, Failure>> + Unpin,
        mut two: impl Future<Output = Result<Box<Connection>, Failure>> + Unpin,
    ) -> Result<(Box<Connection>, bool), Failure> {
        let mut failed = [false; 2];
        poll_fn(|cx| {
            for second in [false, true] {
                if failed[usize::from(second)] {
                    continue;
                }
                let polled =
                    if second { Pin::new(&mut two).poll(cx) } else { Pin::new(&mut one).poll(cx) };
                let Poll::Ready(result) = polled else { continue };
                match result {
                    Err(_) if !failed[usize::from(!second)] => failed[usize::from(second)] = true,
                    Err(failure) => return Poll::Ready(Err(failure)),
                    Ok(connection) => {
                        if !failed[usize::from(!second)] {
                            self.abandoned();
                        }
                        return Poll::Ready(Ok((connection, second)));
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Opens a connection, unless the endpoint leaves while another one, which was not tried, is there.
    async fn open_while_there(
        &self,
        endpoint: &Endpoint,
        tried: Tried,
        reached: &Cell<bool>,
    ) -> Result<Box<Connection>, Failure> {
        tokio::select! {
            biased;
            opened = self.open(endpoint, reached) => opened,
            () = self.left(endpoint, tried) => {
                self.abandoned();
                Err(Failure::Dial(ConnectError::Left { target: endpoint.target.to_string() }))
            }
        }
    }

    /// Ready when the endpoint has left while there is another. Asks whenever something has changed about the upstream.
    async fn left(&self, endpoint: &Endpoint, tried: Tried) {
        let source = &self.upstream.source;
        loop {
            // Taken before the look, so that no change between the two is missed.
            let changed = source.changes.notified();
            let newest = self.worker.newest(&source.model.name);
            if newest.is_some_and(|newest| newest.replaces(&self.upstream, endpoint, &tried)) {
                return;
            }
            changed.await;
        }
    }

    fn abandoned(&self) {
        self.upstream.cells.connects.add("abandoned");
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        reached: &Cell<bool>,
    ) -> Result<Box<Connection>, Failure> {
        let source = &self.upstream.source;
        let security = match (&source.model.tls, &source.tls) {
            (None, _) => Security::Plain,
            (Some(_), Some(client)) => Security::Tls(client),
            (Some(_), None) => Security::Missing,
        };
        let (dialer, timeout) = (&self.worker.shared.dialer, self.connect_timeout);
        let opened = Connection::open(dialer, &endpoint.target, security, timeout, reached).await;
        self.upstream.cells.connects.add(opened.as_ref().map_or_else(|e| e.as_str(), |_| "ok"));
        opened.map_err(|error| {
            endpoint.cells.connect_failures.add(1);
            Failure::Dial(error)
        })
    }
}
