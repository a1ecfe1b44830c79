//! `proxy.conf`: `KEY value` a line, keys in any case.
//!
//! The original's keys mean what they mean there, but that `PORT` works and that a quoted value is taken without its
//! quotes. The other keys are Cloverleaf's own; an original passes over them, so that one file serves both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Diagnostics, HostName, Target};
use net::ports::PortSet;

use super::security::{Identities, Mode, Security};
use super::{Part, hosts, leading_number, leading_port};
use crate::senders::Senders;

/// The original's.
pub const PEER_PORT: u16 = 32_767;
const CLUSTER_PORTS: &str = "1024-29999,32768-65535";

/// How cluster ports are listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steering {
    /// By BPF, or where that is not allowed by binding.
    #[default]
    Auto,
    /// One socket a worker, to which the kernel steers all of them; else the start fails.
    Bpf,
    /// A socket for each port.
    Bind,
}

/// Which files, when they are empty, are taken for empty by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepWhenEmpty {
    /// `hosts.conf`: a cluster without hosts makes no sense.
    pub hosts: bool,
    /// `portmappings.conf`: that of a host on which nothing runs is empty.
    pub mappings: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a client's first bytes are waited for where the pod wants a header.
    pub header_wait: Duration,
    /// From dialling a host to its answer.
    pub host: Duration,
    /// How long a host may be silent before the next one is asked too.
    pub next_host: Duration,
    /// From accepting a client to having a pod for it.
    pub total: Duration,
    /// From dialling a pod to its answer.
    pub pod: Duration,
    /// How long a peer may take to say what it wants.
    pub peer_request: Duration,
    /// How long nothing may move on a connection; `None` for ever.
    pub idle: Option<Duration>,
    /// How long connections may take to end once the program has been told to.
    pub drain: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            header_wait: Duration::from_millis(200),
            host: Duration::from_secs(3),
            next_host: Duration::from_millis(300),
            total: Duration::from_secs(10),
            pod: Duration::from_secs(2),
            peer_request: Duration::from_secs(3),
            idle: Some(Duration::from_secs(86_400)),
            drain: Duration::from_secs(30),
        }
    }
}

/// What `proxy.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `HOSTSCONF`
    pub hosts_file: PathBuf,
    /// `PORTSCONF`
    pub mappings_file: PathBuf,
    /// `HOST`: where to listen; `None` for the host of the first line of `hosts.conf`.
    pub host: Option<HostName>,
    /// `PORT`: where peers connect to.
    pub port: u16,
    /// `PODHOST`: where host ports are; `None` for `HOST`.
    pub pod_host: Option<HostName>,
    /// `CLUSTERPORTS`
    pub cluster_ports: PortSet,
    /// `OWNHOST`: which line of `hosts.conf` is this host; `None` to find out by its addresses.
    pub own_host: Option<Target>,
    /// `PEERS`: who may ask for pods here.
    pub peers: Senders,
    /// `TRUSTED`: whose PROXY protocol header is believed.
    pub trusted: Senders,
    /// `NOHEADER`: cluster ports whose clients send none.
    pub no_header: PortSet,
    /// `STEERING`
    pub steering: Steering,
    /// `KEEPTUNNELS`: connections to hosts of our kind are used again.
    pub keeps: bool,
    /// `SECURITY`, `CERTIFICATE`, `CERTIFICATEKEY`, `AUTHORITIES` and `IDENTITIES`
    pub security: Security,
    /// `KEEPEMPTY`
    pub keep_when_empty: KeepWhenEmpty,
    /// `HEADERWAIT`, `HOSTTIMEOUT`, `NEXTHOST`, `TOTALTIMEOUT`, `PODTIMEOUT`, `PEERTIMEOUT` in milliseconds,
    /// `IDLETIMEOUT` and `DRAIN` in seconds.
    pub times: Times,
}

impl Settings {
    /// Those of an empty file in this folder.
    #[must_use]
    pub fn defaults(folder: &Path) -> Self {
        Self {
            hosts_file: folder.join("hosts.conf"),
            mappings_file: folder.join("portmappings.conf"),
            host: None,
            port: PEER_PORT,
            pod_host: None,
            cluster_ports: ports(CLUSTER_PORTS).0,
            own_host: None,
            peers: Senders::hosts(),
            trusted: Senders::any(),
            no_header: PortSet::default(),
            steering: Steering::Auto,
            keeps: true,
            security: Security::defaults(folder),
            keep_when_empty: KeepWhenEmpty { hosts: true, mappings: false },
            times: Times::default(),
        }
    }
}

/// A value that is none: what was expected.
type Expected = &'static str;
/// What is odd about a value that is taken.
type Odd = Vec<String>;
/// Takes a value over.
type Set = fn(&mut Settings, &str, &Path) -> Result<Odd, Expected>;

const KEYS: [(&str, Set); 26] = [
    ("HOSTSCONF", |s, v, folder| path(&mut s.hosts_file, v, folder)),
    ("PORTSCONF", |s, v, folder| path(&mut s.mappings_file, v, folder)),
    ("HOST", |s, v, _| host_name(&mut s.host, v)),
    ("PORT", |s, v, _| {
        let (port, more) = leading_port(v).ok_or("a port from 1 to 65535")?;
        s.port = port;
        Ok(if more { vec!["what follows the digits is ignored".to_owned()] } else { Vec::new() })
    }),
    ("PODHOST", |s, v, _| host_name(&mut s.pod_host, v)),
    ("CLUSTERPORTS", |s, v, _| port_set(&mut s.cluster_ports, v)),
    ("OWNHOST", |s, v, _| {
        let (target, _) = hosts::host(v).map_err(|_| "a line of hosts.conf, as host:port")?;
        s.own_host = Some(target);
        Ok(Vec::new())
    }),
    ("PEERS", |s, v, _| senders(&mut s.peers, v)),
    ("TRUSTED", |s, v, _| senders(&mut s.trusted, v)),
    ("NOHEADER", |s, v, _| port_set(&mut s.no_header, v)),
    ("STEERING", |s, v, _| {
        s.steering = match v {
            "auto" => Steering::Auto,
            "bpf" => Steering::Bpf,
            "bind" => Steering::Bind,
            _ => return Err("auto, bpf or bind"),
        };
        Ok(Vec::new())
    }),
    ("KEEPTUNNELS", |s, v, _| {
        s.keeps = match v {
            "on" => true,
            "off" => false,
            _ => return Err("on or off"),
        };
        Ok(Vec::new())
    }),
    ("SECURITY", |s, v, _| {
        s.security.mode = Mode::parse(v).ok_or("off, offered or required")?;
        Ok(Vec::new())
    }),
    ("CERTIFICATE", |s, v, folder| path(&mut s.security.certificate, v, folder)),
    ("CERTIFICATEKEY", |s, v, folder| path(&mut s.security.key, v, folder)),
    ("AUTHORITIES", |s, v, folder| path(&mut s.security.authorities, v, folder)),
    ("IDENTITIES", |s, v, _| {
        s.security.identities = Identities::parse(v)
            .ok_or("hosts, or SPIFFE IDs as spiffe://domain/path and spiffe://domain/path/*, between commas")?;
        Ok(Vec::new())
    }),
    ("KEEPEMPTY", |s, v, _| {
        let (hosts, mappings) = match v {
            "hosts" => (true, false),
            "mappings" => (false, true),
            "both" => (true, true),
            "none" => (false, false),
            _ => return Err("hosts, mappings, both or none"),
        };
        s.keep_when_empty = KeepWhenEmpty { hosts, mappings };
        Ok(Vec::new())
    }),
    ("HEADERWAIT", |s, v, _| millis(&mut s.times.header_wait, v)),
    ("HOSTTIMEOUT", |s, v, _| millis(&mut s.times.host, v)),
    ("NEXTHOST", |s, v, _| millis(&mut s.times.next_host, v)),
    ("TOTALTIMEOUT", |s, v, _| millis(&mut s.times.total, v)),
    ("PODTIMEOUT", |s, v, _| millis(&mut s.times.pod, v)),
    ("PEERTIMEOUT", |s, v, _| millis(&mut s.times.peer_request, v)),
    ("IDLETIMEOUT", |s, v, _| {
        let seconds = whole(v, 31_536_000).ok_or("seconds up to 31536000, 0 for ever")?;
        s.times.idle = (seconds > 0).then(|| Duration::from_secs(seconds));
        Ok(Vec::new())
    }),
    ("DRAIN", |s, v, _| {
        let seconds = whole(v, 86_400).ok_or("seconds up to 86400")?;
        s.times.drain = Duration::from_secs(seconds);
        Ok(Vec::new())
    }),
];

/// The settings of a file in this folder, and what is odd or wrong about it. A value that cannot be used is an error:
/// then nothing of the file may be.
#[must_use]
pub fn parse(file: &Arc<str>, folder: &Path, text: &str) -> (Settings, Diagnostics) {
    let mut settings = Settings::defaults(folder);
    let mut found = Diagnostics::default();
    for line in Part::lines(text).filter(|line| !line.is_comment()) {
        let key_end = line.text.find(char::is_whitespace).unwrap_or(line.text.len());
        let (key, rest) = line.text.split_at(key_end);
        if rest.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            found.push(line.warning(file, "left out").expected("KEY value"));
            continue;
        }
        let column = line.column + key.chars().count();
        let value = Part { text: rest, column, ..line }.trimmed();
        let Some((_, set)) = KEYS.iter().find(|(name, _)| key.eq_ignore_ascii_case(name)) else {
            found.push(line.warning(file, "left out: no such key"));
            continue;
        };
        match set(&mut settings, unquoted(value.text), folder) {
            Ok(odd) => found.0.extend(odd.into_iter().map(|odd| value.warning(file, odd))),
            Err(expected) => {
                let mut problem = value.error(file, "a value that cannot be used");
                problem.key = key.to_ascii_uppercase();
                found.push(problem.expected(expected));
            }
        }
    }
    (settings, found)
}

/// The original takes quotes for part of the value, its own example among them.
fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value).trim()
}

fn path(to: &mut PathBuf, value: &str, folder: &Path) -> Result<Odd, Expected> {
    if value.is_empty() {
        return Err("a path");
    }
    *to = folder.join(value);
    Ok(Vec::new())
}

fn host_name(to: &mut Option<HostName>, value: &str) -> Result<Odd, Expected> {
    *to = match value {
        "" => None,
        value => Some(HostName::parse(value).map_err(|_| "an address or a host name")?),
    };
    Ok(Vec::new())
}

fn port_set(to: &mut PortSet, value: &str) -> Result<Odd, Expected> {
    let (set, odd) = ports(value);
    *to = set;
    Ok(odd)
}

/// Ports and ranges between commas; what is none is left out, as the original does.
fn ports(value: &str) -> (PortSet, Odd) {
    let mut set = PortSet::default();
    let mut odd = Vec::new();
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => {
                (first..=last).for_each(|port| set.insert(port));
            }
            (Some(_), Some(_)) => odd.push(format!("left out: {item} ends before it begins")),
            _ => odd.push(format!("left out: {item} is neither a port nor a range of ports")),
        }
    }
    (set, odd)
}

fn senders(to: &mut Senders, value: &str) -> Result<Odd, Expected> {
    *to = Senders::parse(value)
        .ok_or("any, none, hosts, and addresses or networks, between commas")?;
    Ok(Vec::new())
}

fn millis(to: &mut Duration, value: &str) -> Result<Odd, Expected> {
    const HOUR_MILLIS: u64 = 3_600_000;
    let millis = whole(value, HOUR_MILLIS).filter(|n| *n > 0);
    *to = Duration::from_millis(millis.ok_or("milliseconds from 1 to 3600000")?);
    Ok(Vec::new())
}

fn whole(value: &str, most: u64) -> Option<u64> {
    leading_number(value).filter(|(number, more)| !more && *number <= most).map(|(n, _)| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Settings, Diagnostics) {
        parse(&"proxy.conf".into(), Path::new("/etc/sn"), text)
    }

    #[test]
    fn the_example_of_the_original_means_what_it_says() {
        let text = "# Path to hosts file\nHOSTSCONF hosts.conf\nPORTSCONF portmappings.conf\nHOST localhost\n\
                    PORT 32767,\nPODHOST \"\"\nCLUSTERPORTS 1024-29999,32768-65535\n";
        let (settings, found) = read(text);
        let expected = Settings {
            host: Some(HostName::parse("localhost").unwrap()),
            ..Settings::defaults(Path::new("/etc/sn"))
        };
        assert_eq!(settings, expected);
        assert_eq!(
            found.to_string(),
            "proxy.conf:5:6: warning: what follows the digits is ignored (found \"32767,\")"
        );
        assert_eq!(settings.cluster_ports.len(), 28_976 + 32_768);
        assert_eq!(settings.hosts_file, Path::new("/etc/sn/hosts.conf"));
    }

    #[test]
    fn every_kind_of_line() {
        for (text, problems) in [
            ("", &[][..]),
            ("   \n#x\n  # y\n", &[]),
            ("port 1\nPort\t2\n", &[]),
            ("PORT\n", &["proxy.conf:1:1: warning: left out (found \"PORT\", expected KEY value)"]),
            ("PO-RT 1\n", &["left out"]),
            ("COLOUR red\n", &["no such key"]),
            ("PORT x\n", &["proxy.conf:1:6: error: PORT: a value that cannot be used"]),
            ("PORT 70000\n", &["error: PORT"]),
            (
                "CLUSTERPORTS abc,70000,9-5,80, 90 - 95\n",
                &["abc is neither", "70000 is neither", "9-5 ends"],
            ),
            ("HOST a b\n", &["error: HOST"]),
            ("HOST \"::1\"\nPODHOST ''\n", &[]),
            ("STEERING xdp\n", &["auto, bpf or bind"]),
            ("KEEPTUNNELS off\nKEEPTUNNELS 1\n", &["on or off"]),
            ("PEERS hosts,10.0.0.0/8\nTRUSTED none\n", &[]),
            ("PEERS 10.0.0.0/80\n", &["error: PEERS"]),
            ("HEADERWAIT 0\nIDLETIMEOUT 0\nDRAIN 1h\n", &["error: HEADERWAIT", "error: DRAIN"]),
            ("SECURITY on\nSECURITY OFF\n", &["off, offered or required", "off, offered"]),
            ("SECURITY offered\nCERTIFICATE\n", &["KEY value"]),
            ("IDENTITIES hosts,spiffe://a\nIDENTITIES spiffe://A\n", &["SPIFFE", "SPIFFE"]),
            ("IDENTITIES spiffe://a/*, spiffe://b/x\nIDENTITIES hosts\n", &[]),
            ("KEEPEMPTY both\nOWNHOST [fd00::1]:32767\nNOHEADER 5000-5002\n", &[]),
        ] {
            let (_, found) = read(text);
            assert_eq!(found.0.len(), problems.len(), "{text:?}: {found}");
            for (diagnostic, part) in found.0.iter().zip(problems) {
                assert!(diagnostic.to_string().contains(part), "{text:?}: {diagnostic}");
            }
        }
    }

    #[test]
    fn values_arrive_and_the_last_of_a_key_counts() {
        let (settings, _) = read(
            "PORT 1\nport 2\nPORTSCONF /run/p\nCLUSTERPORTS 80,90 - 95\nIDLETIMEOUT 0\nNEXTHOST 5\n\
             KEEPEMPTY none\nNOHEADER 90\nHOST ::\n",
        );
        assert_eq!((settings.port, settings.times.idle), (2, None));
        assert_eq!(settings.mappings_file, Path::new("/run/p"));
        assert_eq!(settings.cluster_ports.to_string(), "80,90-95");
        assert_eq!(settings.times.next_host, Duration::from_millis(5));
        assert!(!settings.keep_when_empty.hosts && settings.no_header.contains(90));
        assert_eq!(settings.host.unwrap().as_str(), "::");
    }
}
