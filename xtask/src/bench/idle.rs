//! Idle clients: what a connection costs that has had one answer and now only waits.
//! They live in a process of their own, so that their files do not count with the proxy's or with ours.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    measure,
    process::{LOAD_CORE, Server, pinned},
};

/// How many connections wait.
pub(crate) const CONNECTIONS: usize = 10_000;
const WARM_UP_CONNECTIONS: usize = 64;
/// What a client may have left to say before it counts as idle.
const SETTLE: Duration = Duration::from_millis(500);
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// What the hidden task of [`hold`] is told.
#[derive(clap::Args)]
pub(crate) struct Hold {
    /// Port of 127.0.0.1
    port: u16,
    /// Number of connections
    connections: usize,
}

/// Bytes of resident memory for each idle connection, and all that the proxy then holds.
pub(crate) fn run(server: &Server, port: u16) -> Result<(f64, u64)> {
    // The first answers pay for what every later one uses too; and before a proxy has its routes, it
    // answers 404.
    let start = Instant::now();
    while let Err(error) = open(port, WARM_UP_CONNECTIONS) {
        if start.elapsed() > CLIENT_LIMIT {
            return Err(error);
        }
        thread::sleep(SETTLE);
    }
    thread::sleep(SETTLE);
    let before = measure::resident_bytes(server.pid());
    let xtask = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(xtask);
    command.args(["bench", "hold", &port.to_string(), &CONNECTIONS.to_string()]);
    let mut child = pinned(&command, LOAD_CORE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the idle clients")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped above")).read_line(&mut line)?;
    thread::sleep(SETTLE);
    let after = measure::resident_bytes(server.pid());
    // The clients wait for the end of their input.
    drop(child.stdin.take());
    child.wait().context("end the idle clients")?;
    if line.trim() != "open" {
        bail!("the idle clients could not all connect");
    }
    Ok((after.saturating_sub(before) as f64 / CONNECTIONS as f64, after))
}

/// Open the connections, say `open`, and hold them until the input ends.
pub(crate) fn hold(options: &Hold) -> Result<()> {
    let clients = open(options.port, options.connections)?;
    println!("open");
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the end of the input")?;
    drop(clients);
    Ok(())
}

/// Connections that have had one answer each.
fn open(port: u16, connections: usize) -> Result<Vec<TcpStream>> {
    (0..connections)
        .map(|index| client(port).with_context(|| format!("idle client {index} of {connections}")))
        .collect()
}

fn client(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect")?;
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.set_nodelay(true)?;
    stream.write_all(b"GET /1k HTTP/1.1\r\nHost: bench.example\r\n\r\n").context("send")?;
    let status = read_reply(&mut stream)?;
    if status != 200 {
        bail!("status {status}");
    }
    Ok(stream)
}

/// Read one reply with a Content-Length; its status.
pub(crate) fn read_reply(stream: &mut TcpStream) -> Result<u16> {
    let mut reply = Vec::with_capacity(2048);
    let mut part = [0; 2048];
    loop {
        if let Some((status, length)) = parse_head(&reply)
            && reply.len() >= length
        {
            return Ok(status);
        }
        let count = stream.read(&mut part).context("read a reply")?;
        if count == 0 {
            bail!("the connection was closed");
        }
        reply.extend_from_slice(&part[..count]);
    }
}

/// Status, and the length of head and body together, once the head is whole.
fn parse_head(reply: &[u8]) -> Option<(u16, usize)> {
    let end = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    Some((status, end + length))
}

#[cfg(test)]
mod tests {
    use super::parse_head;

    #[test]
    fn a_reply_is_measured_by_its_head() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse_head(reply), Some((200, reply.len())));
        assert_eq!(parse_head(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, 26)));
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-"), None);
    }
}
