//! Steady load for as long as something else happens, and a report of every request that went wrong.
//!
//! A [`Load`] is some clients of one kind ([`Work`]), each a thread with one request at a time, at a steady
//! pace. A request that gets no good and complete answer is a failure, with one exception, which is what
//! every client does (RFC 9112 section 9.3.1): a GET on a connection that was used before and turns out
//! closed before the first byte of an answer is sent once more on a new one, and counted as `resent`. What
//! surrounds the load is not known here.

mod websocket;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Failure, Response};
use websocket::WebSocket;

/// What one answer or one message may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two events of a stream.
const EVENT_EVERY: Duration = Duration::from_millis(100);
/// Between two messages of a WebSocket.
const MESSAGE_EVERY: Duration = Duration::from_millis(100);
/// The most events that the echo gives.
const EVENTS_MAX: u32 = 10_000;
/// Failures that a report tells of; all are counted.
const FAILURES_TOLD: usize = 10;

/// Where to, and under which name.
#[derive(Debug, Clone)]
pub struct Target {
    /// The gateway.
    pub address: SocketAddr,
    /// `Host`.
    pub host: String,
}

/// What each client does again and again. All of it is about the role `echo` as the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// GET after GET on one connection, this often.
    Get(Duration),
    /// POST after POST on one connection, this often; never sent twice.
    Post(Duration),
    /// GET after GET, each on a connection of its own, this often.
    Connect(Duration),
    /// A stream of so many events, ten a second, after another.
    Stream(u32),
    /// A WebSocket with so many messages there and back, ten a second, after another.
    WebSocket(u32),
    /// One stream until the end.
    HeldStream,
    /// One WebSocket with ten messages a second until the end.
    HeldWebSocket,
}

/// What became of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Good ones; of held streams and WebSockets each event and message.
    pub done: u64,
    /// How many went wrong.
    pub failed: u64,
    /// The first of these: when, from the start of the load, and how.
    pub failures: Vec<(Duration, String)>,
    /// GETs that were sent once more, as said above.
    pub resent: u64,
    /// How long the slowest took.
    pub slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.slowest.as_millis();
        let Self { name, done, failed, resent, .. } = self;
        write!(
            f,
            "{name:24} {done:7} done {failed:4} failed {resent:4} resent {slowest:6} ms at most"
        )?;
        for (at, what) in &self.failures {
            write!(f, "\n    after {:.1} s: {what}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

impl Report {
    fn add(mut self, other: Self) -> Self {
        self.done += other.done;
        self.failed += other.failed;
        self.resent += other.resent;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.failures.sort();
        self.failures.truncate(FAILURES_TOLD);
        self
    }
}

/// Load that goes on until it is told to stop.
#[derive(Debug)]
pub struct Load {
    name: String,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts so many clients.
    #[must_use]
    pub fn start(name: &str, target: &Target, clients: u32, work: Work) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let visitor = Visitor {
                target: target.clone(),
                stop: stop.clone(),
                begun: Instant::now(),
                connection: None,
                report: Report::default(),
            };
            std::thread::spawn(move || visitor.run(work))
        };
        let clients = (0..clients).map(client).collect();
        Self { name: name.to_owned(), stop, clients }
    }

    /// Lets every client end what it is doing, and adds up.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let reports = self.clients.into_iter().map(|client| client.join().expect("a client"));
        Report { name: self.name, ..reports.fold(Report::default(), Report::add) }
    }
}

/// One client.
struct Visitor {
    target: Target,
    stop: Arc<AtomicBool>,
    begun: Instant,
    /// Open and without a request.
    connection: Option<Client>,
    report: Report,
}

impl Visitor {
    fn run(mut self, work: Work) -> Report {
        while !self.stopped() {
            let start = Instant::now();
            let result = match work {
                Work::Get(_) => self.get(),
                Work::Post(_) => self.post(),
                Work::Connect(_) => {
                    self.connection = None;
                    self.get()
                }
                Work::Stream(events) => self.stream(events),
                Work::WebSocket(messages) => self.websocket(messages),
                Work::HeldStream => self.held_stream(),
                Work::HeldWebSocket => self.held_websocket(),
            };
            let held = matches!(work, Work::HeldStream | Work::HeldWebSocket);
            match result {
                // A held one has counted for itself.
                Ok(()) if held => {}
                Ok(()) => self.done(start),
                Err(what) => self.failed(what),
            }
            if let Work::Get(every) | Work::Post(every) | Work::Connect(every) = work {
                std::thread::sleep(every.saturating_sub(start.elapsed()));
            }
        }
        self.report
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn done(&mut self, start: Instant) {
        self.report.done += 1;
        self.report.slowest = self.report.slowest.max(start.elapsed());
    }

    fn failed(&mut self, what: String) {
        self.report.failed += 1;
        if self.report.failures.len() < FAILURES_TOLD {
            self.report.failures.push((self.begun.elapsed(), what));
        }
        // Not as fast as a refusal comes back.
        std::thread::sleep(Duration::from_millis(20));
    }

    fn connect(&self) -> Result<Client, String> {
        let connected = Client::try_connect(self.target.address);
        Ok(connected.map_err(|error| format!("connecting: {error}"))?.timeout(ANSWER_WITHIN))
    }

    fn get(&mut self) -> Result<(), String> {
        let request = format!("GET /load HTTP/1.1\r\nHost: {}\r\n\r\n", self.target.host);
        if let Some(mut used) = self.connection.take() {
            match used.request(&request) {
                Ok(response) => return self.answered(used, &response),
                Err(Failure::Closed | Failure::Reset) => self.report.resent += 1,
                Err(Failure::Io(error)) if broken(&error) => self.report.resent += 1,
                Err(failure) => return Err(format!("GET: {failure}")),
            }
        }
        let mut new = self.connect()?;
        let response = new.request(&request).map_err(|failure| format!("GET, new: {failure}"))?;
        self.answered(new, &response)
    }

    fn post(&mut self) -> Result<(), String> {
        let host = &self.target.host;
        let request =
            format!("POST /load HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nload");
        let mut connection = match self.connection.take() {
            Some(used) => used,
            None => self.connect()?,
        };
        let response = connection.request(request).map_err(|failure| format!("POST: {failure}"))?;
        self.answered(connection, &response)
    }

    /// Keeps the connection, unless the answer says that it ends.
    fn answered(&mut self, connection: Client, response: &Response) -> Result<(), String> {
        if response.status != 200 {
            return Err(format!("status {}: {}", response.status, response.text().trim()));
        }
        if response.header("connection").is_none_or(|value| value != "close") {
            self.connection = Some(connection);
        }
        Ok(())
    }

    fn ask_stream(&self, events: u32) -> Result<(Client, String), String> {
        let every = EVENT_EVERY.as_millis();
        let host = &self.target.host;
        let request = format!(
            "GET /stream?chunks={events}&every={every}ms HTTP/1.1\r\nHost: {host}\r\n\
             Connection: close\r\n\r\n"
        );
        Ok((self.connect()?, request))
    }

    fn stream(&mut self, events: u32) -> Result<(), String> {
        let (client, request) = self.ask_stream(events)?;
        let response = client.timeout(EVENT_EVERY * events + ANSWER_WITHIN).request(request);
        let response = response.map_err(|failure| format!("stream: {failure}"))?;
        let came = response.text().matches("data: event ").count();
        if response.status != 200 || u32::try_from(came) != Ok(events) {
            return Err(format!("status {}, {came} of {events} events", response.status));
        }
        Ok(())
    }

    fn held_stream(&mut self) -> Result<(), String> {
        let (mut client, request) = self.ask_stream(EVENTS_MAX)?;
        client.try_send(request).map_err(|error| format!("held stream: {error}"))?;
        let mut came = 0;
        while !self.stopped() {
            let start = Instant::now();
            let piece = client
                .read_some()
                .map_err(|failure| format!("held stream: {failure} after {came} pieces"))?;
            if piece.is_empty() || came == 0 && !piece.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("held stream ended after {came} pieces"));
            }
            came += 1;
            self.done(start);
        }
        Ok(())
    }

    fn websocket(&mut self, messages: u32) -> Result<(), String> {
        let mut socket = WebSocket::open(self.connect()?, &self.target.host)?;
        for _ in 0..messages {
            socket.echo()?;
            std::thread::sleep(MESSAGE_EVERY);
        }
        socket.close()
    }

    fn held_websocket(&mut self) -> Result<(), String> {
        let mut socket = WebSocket::open(self.connect()?, &self.target.host)?;
        while !self.stopped() {
            let start = Instant::now();
            socket.echo()?;
            self.done(start);
            std::thread::sleep(MESSAGE_EVERY);
        }
        socket.close()
    }
}

/// Whether a connection could not take a request because the other side had closed it.
fn broken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Step, Upstream};

    const EVERY: Duration = Duration::from_millis(5);

    fn target(upstream: &Upstream) -> Target {
        Target { address: upstream.address(), host: "a.test".to_owned() }
    }

    fn after(load: Load, done: Duration) -> Report {
        std::thread::sleep(done);
        load.stop()
    }

    #[test]
    fn refusals_and_bad_answers_are_failures() {
        let gone = crate::Port::reserve();
        let nobody = Target { address: gone.address(), host: "a.test".to_owned() };
        let report = after(Load::start("nobody", &nobody, 2, Work::Get(EVERY)), EVERY * 10);
        assert!(report.failed > 1 && report.done == 0 && report.resent == 0, "{report}");
        assert!(report.to_string().contains("connecting: "), "{report}");
        let busy = Upstream::start(vec![
            Step::ReadHead,
            Step::send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
        ]);
        let report =
            after(Load::start("busy", &target(&busy), 1, Work::Connect(EVERY)), EVERY * 10);
        assert!(report.failed > 0 && report.done == 0, "{report}");
        assert!(report.failures[0].1.starts_with("status 503"), "{report}");
    }

    #[test]
    fn only_a_get_is_sent_once_more() {
        // Closes behind every answer without saying so.
        let rude = Upstream::start(vec![
            Step::ReadHead,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ]);
        let report = after(Load::start("get", &target(&rude), 1, Work::Get(EVERY)), EVERY * 20);
        assert!(report.failed == 0 && report.done > 1, "{report}");
        assert!(report.resent + 1 >= report.done, "{report}");
        let report = after(Load::start("post", &target(&rude), 1, Work::Post(EVERY)), EVERY * 20);
        assert!(report.failed > 0 && report.resent == 0, "{report}");
    }
}
