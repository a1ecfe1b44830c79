//! What stands between clients and targets: our server and agent, and `tunnel forward` in front of them where clients
//! know no tunnel; or rathole or a relay in Go in their place; or nothing. Must not know what is asked of them.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    CORES, Way,
    field::{Field, HUB, port},
    rathole, relay,
};
use crate::bench::{hosts, process::Server};

/// The server's ports, as they are without being chosen.
pub(super) const CLIENT_PORT: u16 = 8090;
const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8092);
/// Clients without a tunnel's client find each target that much below its port.
const BELOW_TARGET: u16 = 2_000;
const READY_WITHIN: Duration = Duration::from_secs(20);
const TRIP_WITHIN: Duration = Duration::from_secs(2);

/// What is started.
pub(super) struct Programs<'p> {
    pub(super) cloverleaf: &'p Path,
    pub(super) rathole: Option<&'p Path>,
}

/// The programs on a way, all running and ready.
pub(super) struct Ends {
    pub(super) way: Way,
    /// Where clients or visitors come.
    pub(super) server: Option<Server>,
    /// Where the targets are.
    pub(super) agent: Option<Server>,
    /// `tunnel forward`.
    pub(super) front: Option<Server>,
}

impl Ends {
    pub(super) fn start(
        way: Way,
        field: &Field,
        programs: &Programs<'_>,
        folder: &Path,
    ) -> Result<Ends> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut ends = Ends { way, server: None, agent: None, front: None };
        match way {
            Way::Direct => {}
            Way::Rathole => {
                let program = programs.rathole.context("no rathole")?;
                (ends.server, ends.agent) = rathole::start(program, field, folder)?;
            }
            Way::GoRelay => (ends.server, ends.agent) = relay::start(field, folder)?,
            _ => {
                let mode = if way == Way::HttpConnect { "http-connect" } else { "grpc" };
                let spawn = |host, name: &str, arguments: &[String]| {
                    spawn(field, host, programs.cloverleaf, &folder.join(name), arguments)
                };
                ends.server = Some(spawn(HUB, "server.log", &server(field, mode))?);
                ends.agent = Some(spawn(field.far(), "agent.log", &agent(field))?);
                if way == Way::Forward {
                    ends.front = Some(spawn(HUB, "forward.log", &forward(field))?);
                }
            }
        }
        ends.wait(field).with_context(|| ends.last_words())?;
        Ok(ends)
    }

    fn wait(&self, field: &Field) -> Result<()> {
        field.network.on(HUB, || {
            if self.way.is_ours() {
                let ready = testkit::wait_until(READY_WITHIN, || hosts::is_ready(HEALTH));
                ensure!(ready, "no agent has come to the server");
            }
            if self.way == Way::GoRelay {
                let come = || self.server.as_ref().is_some_and(relay::is_ready);
                ensure!(testkit::wait_until(READY_WITHIN, come), "no agent has come to the relay");
            }
            if self.is_plain() {
                let address = (self.target(field, port::ECHO)).parse().context("an address")?;
                let through = testkit::wait_until(READY_WITHIN, || is_through(address));
                ensure!(through, "no byte comes back from {address}");
                // One port after the other opens.
                for port in port::ALL {
                    let address = self.target(field, port).parse().context("an address")?;
                    let open = testkit::wait_until(READY_WITHIN, || is_open(address));
                    ensure!(open, "nobody listens at {address}");
                }
            }
            Ok(())
        })
    }

    /// Whether clients know nothing of a tunnel.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.way, Way::Direct | Way::Forward | Way::Rathole)
    }

    /// What clients connect to in order to reach the target on this port.
    pub(super) fn target(&self, field: &Field, port: u16) -> String {
        match self.way {
            Way::Forward | Way::Rathole => listens(port),
            _ => SocketAddr::new(field.far_address(), port).to_string(),
        }
    }

    /// How the client's program is told about this way.
    pub(super) fn client_flags(&self, field: &Field) -> Vec<String> {
        let mode = match self.way {
            _ if self.is_plain() => return vec!["-mode=direct".to_owned()],
            Way::HttpConnect => "http-connect",
            _ => "grpc",
        };
        vec![
            format!("-mode={mode}"),
            format!("-reuse={}", self.way == Way::GrpcReuse),
            format!("-proxy=127.0.0.1:{CLIENT_PORT}"),
            format!("-ca={}", field.authority.file().display()),
            format!("-cert={}", field.caller.chain_file.display()),
            format!("-key={}", field.caller.key_file.display()),
        ]
    }

    /// The ends of what the programs said, for an error message.
    pub(super) fn last_words(&self) -> String {
        let all = [&self.server, &self.agent, &self.front].into_iter().flatten();
        let words: Vec<String> =
            all.map(Server::last_words).filter(|words| !words.is_empty()).collect();
        match words.is_empty() {
            true => "the programs on the way said nothing".to_owned(),
            false => format!("the programs on the way said:\n{}", words.join("\n")),
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // An agent that is asked to end goes on until it is asked again.
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
    }
}

/// Where a client without a tunnel's client finds the target on this port.
pub(super) fn listens(port: u16) -> String {
    format!("127.0.0.1:{}", port - BELOW_TARGET)
}

/// Starts a program on a host. Whatever ends this one ends it at once: an agent that is asked goes on.
pub(super) fn spawn(
    field: &Field,
    host: u8,
    program: &Path,
    log: &Path,
    arguments: &[String],
) -> Result<Server> {
    let program = program.to_str().context("the path of a program")?;
    let mut command: Command = field.network.command(host, "setpriv");
    command.args(["--pdeathsig", "KILL", program]).args(arguments);
    Server::spawn(&command, CORES, log)
}

fn server(field: &Field, mode: &str) -> Vec<String> {
    let (chain, key) = (field.server.chain_file.display(), field.server.key_file.display());
    let authority = field.authority.file();
    let mut arguments = words(&["tunnel", "server"]);
    for side in ["server", "cluster"] {
        arguments.push(format!("--{side}-cert={chain}"));
        arguments.push(format!("--{side}-key={key}"));
        arguments.push(format!("--{side}-ca-cert={}", authority.display()));
    }
    arguments.push(format!("--mode={mode}"));
    arguments.push(format!("--agent-bind-address={}", field.hub_address()));
    arguments
        .extend(words(&["--server-bind-address=127.0.0.1", "--health-bind-address=127.0.0.1"]));
    arguments
}

fn agent(field: &Field) -> Vec<String> {
    let mut arguments = words(&["tunnel", "agent", "--health-server-host=127.0.0.1"]);
    // Of all three at once the server may be the last that is there.
    arguments.extend(words(&["--sync-interval=100ms", "--sync-interval-cap=200ms"]));
    arguments.push(format!("--agent-cert={}", field.agent.chain_file.display()));
    arguments.push(format!("--agent-key={}", field.agent.key_file.display()));
    arguments.push(format!("--ca-cert={}", field.authority.file().display()));
    arguments.push(format!("--proxy-server-host={}", field.hub_address()));
    arguments
}

/// Each target on a port of its own.
fn forward(field: &Field) -> Vec<String> {
    let mut arguments = words(&["tunnel", "forward"]);
    arguments.push(format!("--server=127.0.0.1:{CLIENT_PORT}"));
    arguments.push(format!("--ca-cert={}", field.authority.file().display()));
    arguments.push(format!("--client-cert={}", field.caller.chain_file.display()));
    arguments.push(format!("--client-key={}", field.caller.key_file.display()));
    for port in port::ALL {
        arguments.push(format!("--listen={}", listens(port)));
        arguments.push(format!("--to={}", SocketAddr::new(field.far_address(), port)));
    }
    arguments
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, TRIP_WITHIN).is_ok()
}

/// Whether a byte comes back from an echo.
fn is_through(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, TRIP_WITHIN)?;
        stream.set_read_timeout(Some(TRIP_WITHIN))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    };
    ask().is_ok()
}
