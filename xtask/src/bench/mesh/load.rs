//! The clients on host 1 and the pods on the others: threads of this process, whose sockets live in the hosts' network
//! namespaces. They share the core that the proxies do not have. Must not know which proxies stand in between.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use testkit::Network;

use crate::bench::{hosts, measure::Ticks};

/// Cluster ports on host 1, one for each kind of pod, and the host ports behind them.
pub(super) const PORTS: [(u16, u16); 4] =
    [(SINK, 30_001), (ECHO, 30_002), (HOLD, 30_003), (HTTP, 30_004)];
/// Takes what it gets and counts it.
pub(super) const SINK: u16 = 61_001;
/// Sends one byte back and waits for the end.
pub(super) const ECHO: u16 = 61_002;
/// Sends one byte back and waits for [`Field::release`].
pub(super) const HOLD: u16 = 61_003;
/// Answers one HTTP request after the other.
pub(super) const HTTP: u16 = 61_004;
/// Where a gateway on host 1 takes requests.
pub(super) const GATEWAY: u16 = 20_080;

/// Threads of a pod that take connections one after the other: more than there are clients at a time, so that none
/// waits behind one that is just ending.
const ECHO_THREADS: usize = 32;
const WRITE_BYTES: usize = 256 * 1024;
/// For every connect, read and write. What takes longer has failed.
pub(super) const WITHIN: Duration = Duration::from_secs(15);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// How every answer ends, whatever a gateway adds to its head.
const ANSWER_END: &[u8] = b"\r\n\r\nok";
const WARM_UP: Duration = Duration::from_millis(700);

/// Hosts with pods on all but the first.
pub(super) struct Field {
    pub(super) network: Network,
    received: Arc<AtomicU64>,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

/// What was moved or done while it was counted, and the processor time that it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) count: u64,
    pub(super) ticks: Ticks,
    pub(super) seconds: f64,
}

impl Field {
    /// So many hosts; those of `pods` get some.
    pub(super) fn open(hosts: u8, pods: impl IntoIterator<Item = u8>) -> Result<Field> {
        let network = hosts::open(hosts)?;
        let field = Field { network, received: Arc::default(), held: Arc::default() };
        for host in pods {
            field.pods(host)?;
        }
        Ok(field)
    }

    /// They serve until this process ends.
    fn pods(&self, host: u8) -> Result<()> {
        for (cluster_port, host_port) in PORTS {
            let address = (self.network.address(host), host_port);
            let socket = self.network.on(host, || TcpListener::bind(address)).context("a pod")?;
            let count = if cluster_port == ECHO { ECHO_THREADS } else { 1 };
            for _ in 0..count {
                let socket = socket.try_clone().context("a pod's socket")?;
                let (received, held) = (self.received.clone(), self.held.clone());
                thread::spawn(move || {
                    for stream in socket.incoming().flatten() {
                        match cluster_port {
                            SINK => {
                                let received = received.clone();
                                thread::spawn(move || sink(stream, &received));
                            }
                            ECHO => echo(stream),
                            HTTP => drop(thread::spawn(move || answer(stream))),
                            _ => hold(stream, &held),
                        }
                    }
                });
            }
        }
        Ok(())
    }

    /// Where clients connect: a cluster port of their own host.
    pub(super) fn front(&self, port: u16) -> (IpAddr, u16) {
        (self.network.address(1), port)
    }

    /// Waits until a request gets through a gateway to a pod.
    pub(super) fn wait_until_answered(&self, within: Duration) -> Result<()> {
        let address = self.front(GATEWAY);
        self.network.on(1, || {
            let begun = Instant::now();
            while let Err(error) = connect(address).and_then(|mut stream| request(&mut stream)) {
                ensure!(begun.elapsed() < within, "no answer through the gateway: {error}");
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
    }

    /// Clients on host 1 that each send one request after the other to a gateway there, over one connection: requests.
    pub(super) fn requests(
        &self,
        clients: usize,
        duration: Duration,
        cpu: &dyn Fn() -> Ticks,
    ) -> Result<Window> {
        let address = self.front(GATEWAY);
        let done = AtomicU64::new(0);
        let client = |stop: &AtomicBool| -> std::io::Result<()> {
            let mut stream = connect(address)?;
            while !stop.load(Ordering::Relaxed) {
                request(&mut stream)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let count = || done.load(Ordering::Relaxed);
        self.counted(clients, &client, &count, duration, cpu)
    }

    /// Waits until a connection gets through to a pod.
    pub(super) fn wait_until_served(&self, within: Duration) -> Result<()> {
        let address = self.front(ECHO);
        self.network.on(1, || {
            let begun = Instant::now();
            while let Err(error) = ask(address) {
                ensure!(begun.elapsed() < within, "no answer through the hosts: {error}");
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
    }

    /// Streams from host 1 to pods, as fast as they go: bytes that the pods got.
    pub(super) fn bulk(
        &self,
        streams: usize,
        duration: Duration,
        cpu: &dyn Fn() -> Ticks,
    ) -> Result<Window> {
        let address = self.front(SINK);
        let client = |stop: &AtomicBool| -> std::io::Result<()> {
            let mut stream = connect(address)?;
            let bytes = vec![7; WRITE_BYTES];
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(&bytes)?;
            }
            Ok(())
        };
        let count = || self.received.load(Ordering::Relaxed);
        self.counted(streams, &client, &count, duration, cpu)
    }

    /// Clients on host 1 that connect, send a byte, get it back and close, again and again: connections.
    pub(super) fn short(
        &self,
        clients: usize,
        duration: Duration,
        cpu: &dyn Fn() -> Ticks,
    ) -> Result<Window> {
        let address = self.front(ECHO);
        let done = AtomicU64::new(0);
        let client = |stop: &AtomicBool| -> std::io::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                ask(address)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let count = || done.load(Ordering::Relaxed);
        self.counted(clients, &client, &count, duration, cpu)
    }

    /// Runs clients on host 1 until what they do has been counted for a while.
    fn counted(
        &self,
        clients: usize,
        client: &(dyn Fn(&AtomicBool) -> std::io::Result<()> + Sync),
        count: &dyn Fn() -> u64,
        duration: Duration,
        cpu: &dyn Fn() -> Ticks,
    ) -> Result<Window> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let run = || scope.spawn(|| self.network.on(1, || client(&stop)));
            let running: Vec<_> = (0..clients).map(|_| run()).collect();
            thread::sleep(WARM_UP);
            let (begun, before, ticks) = (Instant::now(), count(), cpu());
            thread::sleep(duration);
            let window = Window {
                count: count() - before,
                ticks: cpu() - ticks,
                seconds: begun.elapsed().as_secs_f64(),
            };
            stop.store(true, Ordering::Relaxed);
            for client in running {
                match client.join() {
                    Ok(result) => result.context("a client")?,
                    Err(_) => bail!("a client panicked"),
                }
            }
            ensure!(window.count > 0, "nothing came through");
            Ok(window)
        })
    }

    /// Connections from host 1 that have had a byte each and then wait, until they are dropped and
    /// [`Field::release`]d.
    pub(super) fn idle(&self, count: usize) -> Result<Vec<TcpStream>> {
        let address = self.front(HOLD);
        let open = || (0..count).map(|_| begin(address)).collect::<std::io::Result<_>>();
        self.network.on(1, open).context("an idle client")
    }

    /// Has the pods close what they hold.
    pub(super) fn release(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How long connections of host 1 take from the call of connect until a pod's byte is there, one after the other.
    pub(super) fn latencies(&self, count: usize) -> Result<Vec<Duration>> {
        let address = self.front(ECHO);
        let one = |_| {
            let begun = Instant::now();
            let stream = begin(address)?;
            let took = begun.elapsed();
            end(stream)?;
            Ok(took)
        };
        let all = || (0..count).map(one).collect::<std::io::Result<_>>();
        self.network.on(1, all).context("a connection")
    }

    /// So many short connections a second; how many there were.
    pub(super) fn paced(&self, a_second: u32, duration: Duration) -> Result<u64> {
        const CLIENTS: u32 = 8;
        let address = self.front(ECHO);
        let client = |number: u32| -> std::io::Result<u64> {
            let every = Duration::from_secs(1) * CLIENTS / a_second;
            let begun = Instant::now();
            let mut next = Duration::from_secs(1) * number / a_second;
            let mut done = 0;
            while next < duration {
                thread::sleep(next.saturating_sub(begun.elapsed()));
                ask(address)?;
                done += 1;
                next += every;
            }
            Ok(done)
        };
        thread::scope(|scope| {
            let run = |number| scope.spawn(move || self.network.on(1, || client(number)));
            let running: Vec<_> = (0..CLIENTS).map(run).collect();
            running.into_iter().try_fold(0, |sum, client| match client.join() {
                Ok(done) => Ok(sum + done.context("a client")?),
                Err(_) => bail!("a client panicked"),
            })
        })
    }
}

fn connect(address: (IpAddr, u16)) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.into(), WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has had its byte.
fn begin(address: (IpAddr, u16)) -> std::io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// Says that this was all, and waits for the other side's end: so a proxy's work for a connection is done when the next
/// begins.
fn end(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn ask(address: (IpAddr, u16)) -> std::io::Result<()> {
    end(begin(address)?)
}

/// One request and its answer.
fn request(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(REQUEST)?;
    receive(stream, ANSWER_END)
}

/// Reads until what came ends like this.
fn receive(stream: &mut TcpStream, end: &[u8]) -> std::io::Result<()> {
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while !buffer[..filled].ends_with(end) {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    while receive(&mut stream, b"\r\n\r\n").is_ok() && stream.write_all(ANSWER).is_ok() {}
}

fn sink(mut stream: TcpStream, received: &AtomicU64) {
    let mut bytes = vec![0; WRITE_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        received.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(WITHIN));
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            return;
        }
    }
}

fn hold(mut stream: TcpStream, held: &Mutex<Vec<TcpStream>>) {
    let mut byte = [0];
    let _ = stream.set_read_timeout(Some(WITHIN));
    if stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {
        held.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }
}
