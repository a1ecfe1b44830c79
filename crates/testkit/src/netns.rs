//! Networks of a test's own, in network namespaces: [`Network`] is hosts at a switch, [`Isolated`] one host
//! without any. Needs root.
//!
//! ```text
//! host 1: 10.98.0.1, fd98::1 ── switch ── host 2: 10.98.0.2, fd98::2
//!                                     └── host 3: ...
//! ```
//! The machine's own network is not touched, and nobody gets out.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A network. Removed when dropped; what still runs in it then loses its way out.
#[derive(Debug)]
pub struct Network {
    name: String,
    hosts: u8,
}

impl Network {
    /// One with so many hosts, numbered from 1. `None` where this user may not make one: then the test cannot run.
    ///
    /// # Panics
    /// If it cannot be made and `CI` is `true`, where nothing is left out; if root cannot make it.
    #[must_use]
    pub fn new(hosts: u8) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "network namespaces need root");
            eprintln!("left out: network namespaces need root");
            return None;
        }
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("cltest{}-{number}", std::process::id()), hosts };
        network.up();
        Some(network)
    }

    fn up(&self) {
        let switch = self.switch();
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge stp_state 0 forward_delay 0"));
        ip(&format!("-n {switch} link set br0 up"));
        for host in 1..=self.hosts {
            let namespace = self.namespace(host);
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
            let peer = format!("peer name host{host} netns {switch}");
            ip(&format!("link add eth0 netns {namespace} type veth {peer}"));
            ip(&format!("-n {switch} link set host{host} master br0 up"));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.address(host)));
            let v6 = self.address_v6(host);
            ip(&format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
    }

    fn switch(&self) -> String {
        format!("{}-s", self.name)
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }

    /// How many hosts there are.
    #[must_use]
    pub fn hosts(&self) -> u8 {
        self.hosts
    }

    /// A host's address. One beyond the last host's is nobody's: who connects there hears nothing for seconds.
    #[must_use]
    pub fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 98, 0, host).into()
    }

    /// A host's IPv6 address.
    #[must_use]
    pub fn address_v6(&self, host: u8) -> IpAddr {
        Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, host.into()).into()
    }

    /// A program to be run on a host. What is started has the process id of the program itself.
    #[must_use]
    pub fn command(&self, host: u8, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host))).arg("--").arg(program);
        command
    }

    /// Calls a function on a thread that is on a host. Sockets that it makes stay there, wherever they are used.
    ///
    /// # Panics
    /// If the function does.
    pub fn on<T: Send>(&self, host: u8, function: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(host));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace = File::open(path).expect("the host's namespace");
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network).expect("root may go there");
                function()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Pulls a host's cable: it hears nothing and nobody hears it.
    ///
    /// # Panics
    /// If that fails.
    pub fn cut(&self, host: u8) {
        ip(&format!("-n {} link set host{host} down", self.switch()));
    }

    /// Puts it back.
    ///
    /// # Panics
    /// If that fails.
    pub fn mend(&self, host: u8) {
        ip(&format!("-n {} link set host{host} up", self.switch()));
    }
}

/// A host that is at no network: loopback, and an address that is not loopback's. It has no name, and is gone
/// with the last process and the last value that is in it or refers to it, also when those are killed.
#[derive(Debug)]
pub struct Isolated {
    namespace: File,
}

impl Isolated {
    /// Of those that are for documentation (RFC 5737): nobody's, in case that somebody gets out after all.
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    /// A new one. `None` where this user may not make one.
    ///
    /// # Panics
    /// If root cannot make it.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let up = format!("ip link set lo up && ip addr add {}/32 dev lo && echo up", Self::ADDRESS);
        // Whoever reads the line knows that the namespace is there; it ends with its input.
        let mut maker = Command::new("unshare")
            .args(["--net", "sh", "-c", &format!("{up} && exec cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program unshare");
        let mut line = String::new();
        let said = BufReader::new(maker.stdout.take().expect("piped")).read_line(&mut line);
        assert!(said.is_ok() && line == "up\n", "no network namespace: {said:?} {line:?}");
        let namespace = File::open(format!("/proc/{}/ns/net", maker.id()));
        drop(maker.stdin.take());
        let ended = maker.wait();
        assert!(ended.is_ok_and(|status| status.success()), "making a network namespace");
        Some(Self { namespace: namespace.expect("the maker's namespace") })
    }

    /// Moves the calling thread there, and with it all that it starts from then on, threads and programs.
    ///
    /// # Panics
    /// If that fails.
    pub fn enter(&self) {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.namespace.as_fd(), network).expect("root may go there");
    }

    /// The address beside loopback's.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        Self::ADDRESS.into()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let all = (1..=self.hosts).map(|host| self.namespace(host)).chain([self.switch()]);
        for namespace in all {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
    }
}

fn ip(arguments: &str) {
    let ran = Command::new("ip").args(arguments.split(' ')).output().expect("the program ip");
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "ip {arguments}: {stderr}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn hosts_reach_each_other_and_not_this_one() {
        let Some(network) = Network::new(2) else { return };
        let there = |host, port| (network.address(host), port);
        let listener = network.on(2, || TcpListener::bind(there(2, 80))).unwrap();
        network.on(1, || TcpStream::connect(there(2, 80))).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), network.address(1));
        let v6 = network.on(2, || TcpListener::bind((network.address_v6(2), 80))).unwrap();
        network.on(1, || TcpStream::connect((network.address_v6(2), 80))).unwrap();
        v6.accept().unwrap();
        network.cut(2);
        let within = Duration::from_millis(300);
        let late = network.on(1, || TcpStream::connect_timeout(&there(2, 80).into(), within));
        assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert!(network.command(1, "true").status().unwrap().success());
    }

    #[test]
    fn an_isolated_host_reaches_itself_and_nobody_else() {
        let Some(isolated) = Isolated::new() else {
            eprintln!("left out: network namespaces need root");
            return;
        };
        let outside = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = outside.local_addr().unwrap().port();
        let inside = std::thread::spawn(move || {
            isolated.enter();
            let own = (isolated.address(), port);
            // The same port is free here.
            let listener = TcpListener::bind(own).unwrap();
            let connected = std::thread::spawn(move || TcpStream::connect(own)).join().unwrap();
            assert_eq!(listener.accept().unwrap().1, connected.unwrap().local_addr().unwrap());
            let nowhere = TcpStream::connect("192.0.2.1:80").unwrap_err();
            assert_eq!(nowhere.kind(), std::io::ErrorKind::NetworkUnreachable);
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        });
        inside.join().unwrap();
    }
}
