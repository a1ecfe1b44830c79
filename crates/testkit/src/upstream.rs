//! An upstream that does what a test tells it, byte for byte, also what no good server would do.
//!
//! Every connection runs a list of [`Step`]s in a thread and what it received is kept. All ends when the
//! [`Upstream`] is dropped.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::certs::Issued;
use crate::wire::{self, Wire};

/// A connection without any progress ends after this: no test waits longer.
const LIFETIME_MAX: Duration = Duration::from_secs(60);

/// Kept of what one connection received; the rest is read and dropped.
const RECORDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Between two looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// After our end of the stream, how long the peer may take for its own.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection does next. After the last one it is closed as by [`Step::Close`].
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads up to the empty line behind a head.
    ReadHead,
    /// Reads a head and, by its framing, its body.
    ReadRequest,
    /// Reads so many bytes.
    Read(usize),
    /// Reads until the peer sends no more.
    ReadToEnd,
    /// Waits for the next byte, which stays to be read; ends the connection's steps if none comes any more.
    AwaitByte,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends one byte after another, with a pause between them.
    Drip(Vec<u8>, Duration),
    /// Sends pieces of zeros until the peer takes no more or so many bytes are sent.
    Flood(usize),
    /// Sends back all that comes, until the peer sends no more.
    Echo,
    /// Waits for a time.
    Pause(Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Does nothing and keeps the connection open until the peer closes it or the upstream is dropped.
    Hang,
    /// Starts again with the first step, unless the peer has closed.
    Repeat,
    /// Ends the stream in an orderly way (`close_notify` where there is TLS, FIN), and reads on until the
    /// peer has closed too, so that the kernel makes no reset of it.
    Close,
    /// As [`Self::Close`] but without `close_notify`: a cut, for TLS.
    Cut,
    /// Ends the connection with a reset.
    Reset,
}

impl Step {
    /// Sends text.
    #[must_use]
    pub fn send(text: impl AsRef<[u8]>) -> Self {
        Self::Send(text.as_ref().to_vec())
    }
}

/// Closed at first; opened by a test, once, for all who wait.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through.
    pub fn open(&self) {
        *locked(&self.0.0) = true;
        self.0.1.notify_all();
    }

    fn wait(&self, stop: &AtomicBool) {
        let deadline = Instant::now() + LIFETIME_MAX;
        let mut open = locked(&self.0.0);
        while !*open && !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
            let waited = self.0.1.wait_timeout(open, LOOK_EVERY);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became known of one connection.
#[derive(Debug, Default, Clone)]
struct Record {
    received: Vec<u8>,
    requests: Vec<Vec<u8>>,
    ended: bool,
}

/// Makes the steps of a connection, given its number from 0.
type Script = dyn Fn(usize) -> Vec<Step> + Send + Sync;

struct Shared {
    stop: AtomicBool,
    script: Box<Script>,
    tls: Option<Arc<ServerConfig>>,
    records: Mutex<Vec<Record>>,
    /// By the connection's number, while it runs: to wake its thread at the end.
    sockets: Mutex<HashMap<usize, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A server on a free port of 127.0.0.1.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Every connection runs the same steps.
    #[must_use]
    pub fn start(steps: impl Into<Vec<Step>>) -> Self {
        let steps = steps.into();
        Self::scripted(move |_| steps.clone())
    }

    /// Each connection, by its number from 0, runs steps of its own.
    #[must_use]
    pub fn scripted(script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listening(Box::new(script), None)
    }

    /// As [`Self::scripted`], with TLS and these ALPN names (none: no ALPN).
    #[must_use]
    pub fn scripted_tls(
        certificate: &Issued,
        alpn: &[&str],
        script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(Box::new(script), Some(wire::server_config(certificate, alpn)))
    }

    /// Reads requests and gives each the same bytes as answer, on connections that stay open.
    #[must_use]
    pub fn answering(response: impl AsRef<[u8]>) -> Self {
        Self::start([Step::ReadRequest, Step::send(response), Step::Repeat])
    }

    fn listening(script: Box<Script>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port of 127.0.0.1");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            script,
            tls,
            records: Mutex::default(),
            sockets: Mutex::default(),
            threads: Mutex::default(),
        });
        let accepting = {
            let shared = shared.clone();
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have come.
    #[must_use]
    pub fn connections(&self) -> usize {
        locked(&self.shared.records).len()
    }

    /// How many of them have not ended yet.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        locked(&self.shared.records).iter().filter(|record| !record.ended).count()
    }

    /// All that a connection, by its number, received so far; empty if there is no such.
    #[must_use]
    pub fn received(&self, connection: usize) -> Vec<u8> {
        locked(&self.shared.records).get(connection).map_or_else(Vec::new, |r| r.received.clone())
    }

    /// The requests that [`Step::ReadRequest`] and [`Step::ReadHead`] read, of all connections, each in full.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let records = locked(&self.shared.records);
        let requests = records.iter().flat_map(|record| &record.requests);
        requests.map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.address, LINGER);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for (_, socket) in locked(&self.shared.sockets).drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let threads: Vec<_> = locked(&self.shared.threads).drain(..).collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let number = {
            let mut records = locked(&shared.records);
            records.push(Record::default());
            records.len() - 1
        };
        if let Ok(clone) = socket.try_clone() {
            locked(&shared.sockets).insert(number, clone);
        }
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let steps = (shared.script)(number);
                // A peer that goes away ends the steps.
                let _ = Connection::open(socket, number, &shared).and_then(|mut c| c.run(&steps));
                // The last handle: this closes the connection.
                locked(&shared.sockets).remove(&number);
                locked(&shared.records)[number].ended = true;
            })
        };
        locked(&shared.threads).push(thread);
    }
}

/// A connection and what was read ahead of it.
struct Connection<'a> {
    wire: Wire,
    ahead: Vec<u8>,
    number: usize,
    shared: &'a Shared,
}

impl<'a> Connection<'a> {
    fn open(socket: TcpStream, number: usize, shared: &'a Shared) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LIFETIME_MAX))?;
        socket.set_write_timeout(Some(LIFETIME_MAX))?;
        let wire = match &shared.tls {
            Some(config) => wire::accept(config.clone(), socket)?,
            None => Wire::Plain(socket),
        };
        Ok(Self { wire, ahead: Vec::new(), number, shared })
    }

    fn run(&mut self, steps: &[Step]) -> io::Result<()> {
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            next += 1;
            match step {
                Step::Repeat => next = if self.await_byte()? { 0 } else { steps.len() },
                Step::AwaitByte if !self.await_byte()? => break,
                Step::AwaitByte => {}
                Step::Close => break,
                Step::Cut => {
                    self.wire.socket().shutdown(Shutdown::Write)?;
                    return self.drain();
                }
                Step::Reset => return self.wire.reset_on_close(),
                other => self.step(other)?,
            }
        }
        self.wire.finish()?;
        self.drain()
    }

    fn step(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::ReadHead => self.read_head().map(|head| self.record_request(head)),
            Step::ReadRequest => self.read_request(),
            Step::Read(count) => self.take(*count).map(drop),
            Step::ReadToEnd => {
                while self.more()? > 0 {
                    self.ahead.clear();
                }
                Ok(())
            }
            Step::Send(bytes) => self.send(bytes),
            Step::Drip(bytes, every) => {
                for byte in bytes {
                    self.send(&[*byte])?;
                    self.pause(*every);
                }
                Ok(())
            }
            Step::Flood(count) => {
                let zeros = [0; 64 * 1024];
                let mut left = *count;
                while left > 0 {
                    let piece = left.min(zeros.len());
                    self.send(&zeros[..piece])?;
                    left -= piece;
                }
                Ok(())
            }
            Step::Echo => loop {
                let bytes = std::mem::take(&mut self.ahead);
                self.send(&bytes)?;
                if self.more()? == 0 {
                    return Ok(());
                }
            },
            Step::Pause(time) => {
                self.pause(*time);
                Ok(())
            }
            Step::Wait(gate) => {
                gate.wait(&self.shared.stop);
                Ok(())
            }
            Step::Hang => {
                while self.more()? > 0 {}
                Ok(())
            }
            Step::AwaitByte | Step::Repeat | Step::Close | Step::Cut | Step::Reset => Ok(()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// Sleeps, but not beyond the upstream's end.
    fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time.min(LIFETIME_MAX);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Takes in more bytes; 0 at the end of the stream.
    fn more(&mut self) -> io::Result<usize> {
        let mut buf = [0; 64 * 1024];
        let count = self.wire.read(&mut buf)?;
        self.ahead.extend_from_slice(&buf[..count]);
        let received = &mut locked(&self.shared.records)[self.number].received;
        let room = RECORDED_BYTES_MAX.saturating_sub(received.len());
        received.extend_from_slice(&buf[..count.min(room)]);
        Ok(count)
    }

    /// Whether another byte is there or comes.
    fn await_byte(&mut self) -> io::Result<bool> {
        Ok(!self.ahead.is_empty() || self.more()? > 0)
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.ahead.split_off(count);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Reads through the next occurrence of a mark.
    fn take_through(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let from = searched.min(self.ahead.len());
            let found = self.ahead[from..].windows(mark.len()).position(|w| w == mark);
            if let Some(at) = found {
                return self.take(from + at + mark.len());
            }
            searched = (self.ahead.len() + 1).saturating_sub(mark.len());
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_head(&mut self) -> io::Result<Vec<u8>> {
        self.take_through(b"\r\n\r\n")
    }

    fn read_request(&mut self) -> io::Result<()> {
        let mut request = self.read_head()?;
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let value = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let chunked = value("transfer-encoding").is_some_and(|v| v.ends_with("chunked"));
        let length: usize = value("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        if chunked {
            loop {
                let line = self.take_through(b"\r\n")?;
                let digits = String::from_utf8_lossy(&line);
                let digits = digits.split([';', '\r']).next().unwrap_or_default();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                request.extend_from_slice(&line);
                if size == 0 {
                    break;
                }
                request.extend(self.take(size + 2)?);
            }
            // Trailers, up to the empty line.
            loop {
                let line = self.take_through(b"\r\n")?;
                request.extend_from_slice(&line);
                if line == b"\r\n" {
                    break;
                }
            }
        } else {
            request.extend(self.take(length)?);
        }
        self.record_request(request);
        Ok(())
    }

    fn record_request(&self, request: Vec<u8>) {
        locked(&self.shared.records)[self.number].requests.push(request);
    }

    /// Reads until the peer has closed too.
    fn drain(&mut self) -> io::Result<()> {
        self.wire.socket().set_read_timeout(Some(LINGER))?;
        let deadline = Instant::now() + LINGER;
        while Instant::now() < deadline && self.more()? > 0 {
            self.ahead.clear();
        }
        Ok(())
    }
}
