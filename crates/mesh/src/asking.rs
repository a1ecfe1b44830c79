//! One other host is asked for a pod: plain, or secured where both sides can.
//!
//! Where security is only offered, a host that has been found to speak TLS is asked in TLS, and plain when that fails;
//! others are asked plain, which costs those that can do no more than that nothing, and in TLS when they demand it.
//! Before a connection is made, those that are [`kept`] are tried.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::at_once;
use net::dial::{DialError, Dialer, Stream};
use tls::{Mutual, MutualError};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::files::security::Mode;
use crate::framed::Framed;
use crate::hosts::{Answer, Host, Speaks, Tunnel};
use crate::kept::{self, Back, Origin};
use crate::peer::{Reply, Request, read_reply};
use crate::sealed::{is_sealed, sealed};
use crate::security::{Counts, Direction, Secured};
use crate::shared::Clock;

/// How often a thread says that local ports are short.
const SHORTAGE_EVERY: Duration = Duration::from_secs(10);

thread_local! {
    static LAST_SHORTAGE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A tunnel to a pod on another host.
pub(crate) struct Found {
    /// A socket, or sealed, or framed.
    pub(crate) stream: Stream,
    pub(crate) wants_header: bool,
    /// What the pod has said already.
    pub(crate) first: Vec<u8>,
    pub(crate) host: Arc<str>,
    pub(crate) tunnel: Tunnel,
}

/// What is needed to ask.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) dialer: Dialer,
    pub(crate) secured: Secured,
    pub(crate) counts: Arc<Counts>,
    pub(crate) clock: Clock,
    /// Connections are kept.
    pub(crate) keeps: bool,
}

/// Why there is no tunnel.
enum Failed {
    Answer(Answer),
    /// The host and we do not trust each other, or it does not speak TLS.
    Security(MutualError),
    /// It was asked plain and demands TLS.
    DemandsTls,
    /// It had been kept, and the other side has closed it meanwhile: that answers nothing.
    Stale,
}

impl From<Answer> for Failed {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Asker {
    /// Asks one host. Dropped, it closes the connection.
    pub(crate) async fn ask(
        self,
        host: Arc<Host>,
        cluster_port: u16,
        within: Duration,
    ) -> Result<Found, Answer> {
        let question = Question { asker: &self, host: &host, cluster_port, within };
        let answer = tokio::time::timeout(within, question.ask()).await;
        answer.unwrap_or(Err(Answer::Silent))
    }

    /// Notes that a host cannot be spoken to in TLS, and why.
    pub(crate) fn distrust(&self, host: &Host, error: &MutualError) {
        self.counts.failed(Direction::Out, error);
        let now = self.clock.now();
        let changed = host.failed(error.kind(), now);
        let error = error as &dyn std::error::Error;
        let plain = self.secured.mode() == Mode::Offered;
        match (changed, plain) {
            (true, true) => {
                tracing::warn!(host = &*host.name, error, "a host is spoken to without security");
            }
            (true, false) => {
                tracing::warn!(host = &*host.name, error, "a host cannot be spoken to securely");
            }
            (false, _) => tracing::debug!(host = &*host.name, error, "still no security"),
        }
    }
}

/// One question to one host.
struct Question<'a> {
    asker: &'a Asker,
    host: &'a Arc<Host>,
    cluster_port: u16,
    within: Duration,
}

impl Question<'_> {
    async fn ask(&self) -> Result<Found, Answer> {
        let found = match self.ask_kept().await {
            Some(answered) => answered,
            None => self.ask_anew().await,
        };
        found.map_err(|failed| self.answer(failed))
    }

    /// Over connections that are there, until one answers; `None` where none does.
    async fn ask_kept(&self) -> Option<Result<Found, Failed>> {
        let asker = self.asker;
        if !asker.keeps {
            return None;
        }
        loop {
            let now = asker.clock.now();
            let (stream, origin) = kept::take(self.host, &asker.secured, self.wants_tls(), now)?;
            match self.over(stream, origin, true).await {
                Err(Failed::Stale) => {}
                answered => {
                    self.host.asked_again();
                    return Some(answered);
                }
            }
        }
    }

    /// Whether a new connection would be secured.
    fn wants_tls(&self) -> bool {
        match self.asker.secured.mode() {
            Mode::Off => false,
            Mode::Offered => self.host.speaks() == Speaks::Tls,
            Mode::Required => true,
        }
    }

    async fn ask_anew(&self) -> Result<Found, Failed> {
        let mutual = self.asker.secured.mutual();
        match (self.asker.secured.mode(), mutual) {
            (Mode::Off, _) | (_, None) => self.plain().await,
            (Mode::Required, Some(mutual)) => self.secured(mutual).await,
            (Mode::Offered, Some(mutual)) if self.host.speaks() == Speaks::Tls => {
                match self.secured(mutual).await {
                    Err(Failed::Security(error)) => {
                        self.asker.distrust(self.host, &error);
                        self.plain().await
                    }
                    answered => answered,
                }
            }
            (Mode::Offered, Some(mutual)) => match self.plain().await {
                Err(Failed::DemandsTls) => self.secured(mutual).await,
                answered => answered,
            },
        }
    }

    /// What a failure means for the host.
    fn answer(&self, failed: Failed) -> Answer {
        match failed {
            Failed::Answer(answer) => answer,
            Failed::Stale => Answer::No,
            Failed::Security(error) => {
                self.asker.distrust(self.host, &error);
                Answer::Insecure
            }
            Failed::DemandsTls => {
                if self.asker.counts.may_complain(self.asker.clock.now()) {
                    tracing::warn!(
                        host = &*self.host.name,
                        "a host demands a secured connection: SECURITY is off here, and required there"
                    );
                }
                Answer::Insecure
            }
        }
    }

    async fn dial(&self) -> Result<TcpStream, Failed> {
        let dialled = self.asker.dialer.connect_to_speak(&self.host.target, self.within).await;
        Ok(dialled.map_err(|error| unreached(&error))?)
    }

    async fn plain(&self) -> Result<Found, Failed> {
        self.over(Stream::Tcp(self.dial().await?), self.origin(), false).await
    }

    /// Of a connection that is made now.
    fn origin(&self) -> Origin {
        let (clock, secured) = (self.asker.clock, self.asker.secured.clone());
        Origin { host: self.host.clone(), secured, made_at: clock.now(), clock }
    }

    /// Needs much memory, which plain questions shall not pay for.
    fn secured<'s>(
        &'s self,
        mutual: &'s Mutual,
    ) -> Pin<Box<impl Future<Output = Result<Found, Failed>>>> {
        Box::pin(self.in_tls(mutual))
    }

    async fn in_tls(&self, mutual: &Mutual) -> Result<Found, Failed> {
        let stream = self.dial().await?;
        // Who carries a plain one sees to that by itself.
        let _ = stream::keep_alive(&stream);
        let stream = mutual.connect(stream, &self.host.target.host()).await;
        let stream = stream.map_err(Failed::Security)?;
        let resumed = stream.resumed();
        let found = self.over(sealed(stream), self.origin(), false).await;
        if !matches!(found, Err(Failed::Security(_))) {
            self.asker.counts.complete(Direction::Out, resumed);
            self.host.speaks_tls(self.asker.clock.now());
        }
        found
    }

    /// Over a connection that is there. Where it `rested`, its end says nothing of pods.
    async fn over(
        &self,
        mut stream: Stream,
        origin: Origin,
        rested: bool,
    ) -> Result<Found, Failed> {
        let request = Request { cluster_port: self.cluster_port, keeps: self.asker.keeps };
        let sent = at_once::write_all(&mut stream, &request.encode()).await;
        let replied = match sent {
            Ok(()) => reply(&mut stream).await,
            Err(error) => Err(broken(&stream, error)),
        };
        let (reply, first) = match replied {
            Err(Failed::Answer(Answer::No) | Failed::Security(_)) if rested => {
                return Err(Failed::Stale);
            }
            replied => replied?,
        };
        match reply {
            Reply::Busy => Err(Answer::Busy.into()),
            Reply::DemandsTls => Err(Failed::DemandsTls),
            Reply::None => {
                kept::keep(stream, origin);
                Err(Answer::No.into())
            }
            Reply::Tunnel { wants_header, framed } => {
                self.asker.counts.tunnel(Direction::Out, is_sealed(&stream));
                let (host, tunnel) = (self.host.name.clone(), Tunnel::to(self.host));
                let (stream, first) = match framed {
                    true => {
                        let framed = Framed::new(stream, first, Back::to_this_thread(origin));
                        (Stream::Way(Box::new(framed)), Vec::new())
                    }
                    false => (stream, first),
                };
                Ok(Found { stream, wants_header, first, host, tunnel })
            }
        }
    }
}

/// What it says of a host that it is not reached.
pub(crate) fn unreached(error: &DialError) -> Answer {
    tracing::debug!(error = error as &dyn std::error::Error, "a host cannot be asked");
    if let DialError::Connect { target, source } = error
        && source.kind() == io::ErrorKind::AddrNotAvailable
        && LAST_SHORTAGE.get().is_none_or(|last| last.elapsed() >= SHORTAGE_EVERY)
    {
        LAST_SHORTAGE.set(Some(Instant::now()));
        tracing::warn!(
            target_host = target,
            "no local port is free for connections to a host: tcp_tw_reuse or ip_local_port_range give more"
        );
    }
    match error {
        DialError::Timeout { .. } => Answer::Silent,
        _ => Answer::Refused,
    }
}

/// What it means that a connection breaks off before an answer. That is how the original says that it has no such pod;
/// a secured connection ends in order then, and else it may be that the host does not accept our certificate.
fn broken(stream: &Stream, error: io::Error) -> Failed {
    if is_sealed(stream) { Failed::Security(error.into()) } else { Failed::Answer(Answer::No) }
}

/// The answer, and what follows it.
async fn reply(stream: &mut Stream) -> Result<(Reply, Vec<u8>), Failed> {
    const AT_A_TIME_BYTES: usize = 4096;
    let mut seen = Vec::new();
    loop {
        match read_reply(&seen) {
            Ok(Some((reply, length))) => return Ok((reply, seen.split_off(length))),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a host answered something else");
                return Err(Answer::NotAPeer.into());
            }
        }
        seen.reserve(AT_A_TIME_BYTES);
        match stream.read_buf(&mut seen).await {
            Ok(0) => return Err(Answer::No.into()),
            Err(error) => return Err(broken(stream, error)),
            Ok(_) => {}
        }
    }
}
