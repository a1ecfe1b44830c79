//! Where it happens: one host, or two with a link between them, in network namespaces; certificates of all sides; and
//! the targets, on the host of the agent. Must not know what stands between clients and targets.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use testkit::{Authority, Issued, Network, certs::Wanted};

use super::CORES;
use crate::bench::{hosts, process::Server};

/// The host of clients, of the server and of `tunnel forward`.
pub(super) const HUB: u8 = 1;
const LINK_MEGABITS_A_SECOND: u32 = 1_000;
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Ports of targets, as `tests/konnectivity/load/targets.go` has them.
pub(super) mod port {
    pub(crate) const ECHO: u16 = 9000;
    /// Writes as long as it can, once it has heard a byte.
    pub(crate) const SOURCE: u16 = 9001;
    pub(crate) const SINK: u16 = 9002;
    /// Reads nothing.
    pub(crate) const DEAF: u16 = 9003;
    /// Reads and writes as fast as it can.
    pub(crate) const BOTH: u16 = 9004;
    /// Speaks first.
    pub(crate) const GREETS: u16 = 9005;
    /// Answers what has ended.
    pub(crate) const ANSWERS: u16 = 9006;
    pub(crate) const ALL: [u16; 7] = [ECHO, SOURCE, SINK, DEAF, BOTH, GREETS, ANSWERS];
}

/// Hosts with targets on the last.
pub(super) struct Field {
    // Ended before the hosts go.
    _targets: Server,
    pub(super) network: Network,
    pub(super) client: PathBuf,
    pub(super) authority: Authority,
    /// The server's, for clients and for agents.
    pub(super) server: Issued,
    pub(super) agent: Issued,
    pub(super) caller: Issued,
}

impl Field {
    /// One host, where everything is on loopback, or two with a link of 1 Gbit/s.
    pub(super) fn open(count: u8, client: &Path, folder: &Path) -> Result<Field> {
        let network = hosts::open(count)?;
        if count > 1 {
            (1..=count).try_for_each(|host| hosts::slow(&network, host, LINK_MEGABITS_A_SECOND))?;
        }
        let program = client.to_str().context("the path of Konnectivity's client")?;
        let mut command: Command = network.command(count, program);
        command.args(["targets", "-listen", &address(&network, count).to_string()]);
        let targets = Server::spawn(&command, CORES, &folder.join("targets.log"))?;
        let listening = || targets.last_words().contains("ready");
        ensure!(
            testkit::wait_until(READY_WITHIN, listening),
            "no targets: {}",
            targets.last_words()
        );
        let authority = Authority::new();
        let names = ["127.0.0.1".to_owned(), network.address(HUB).to_string()];
        Ok(Field {
            _targets: targets,
            server: authority.server(&names.each_ref().map(String::as_str)),
            agent: authority.issue(&Wanted::client("agent")),
            caller: authority.issue(&Wanted::client("client")),
            client: client.to_owned(),
            authority,
            network,
        })
    }

    /// The host of the agent and of the targets.
    pub(super) fn far(&self) -> u8 {
        self.network.hosts()
    }

    /// Where the agent finds the server.
    pub(super) fn hub_address(&self) -> IpAddr {
        match self.far() {
            HUB => Ipv4Addr::LOCALHOST.into(),
            _ => self.network.address(HUB),
        }
    }

    /// Where targets listen.
    pub(super) fn far_address(&self) -> IpAddr {
        address(&self.network, self.far())
    }
}

fn address(network: &Network, host: u8) -> IpAddr {
    match host {
        HUB => Ipv4Addr::LOCALHOST.into(),
        _ => network.address(host),
    }
}
