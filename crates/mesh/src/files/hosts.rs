//! `hosts.conf`: the hosts of the cluster, one `host:port` a line.
//!
//! Beyond the original: `[address]:port` for IPv6, comment lines, and no host twice. A third field is ignored, as
//! there.

use std::sync::Arc;

use model::{Diagnostics, HostName, Target};

use super::{Part, leading_port};

/// Hosts of a cluster; the rest of the file is not looked at.
pub const HOSTS_MAX: usize = 1000;

/// The hosts in the order of the file, and what is odd about it. Nothing in such a file is an error: a line that is
/// none of a host is left out.
#[must_use]
pub fn parse(file: &Arc<str>, text: &str) -> (Vec<Target>, Diagnostics) {
    let mut hosts: Vec<Target> = Vec::new();
    let mut found = Diagnostics::default();
    for line in Part::lines(text).filter(|line| !line.is_comment()) {
        if hosts.len() == HOSTS_MAX {
            found
                .push(line.warning(file, format!("left out: there are {HOSTS_MAX} hosts already")));
            break;
        }
        match host(line.text) {
            Ok((target, odd)) if !hosts.contains(&target) => {
                hosts.push(target);
                if let Some(odd) = odd {
                    found.push(line.warning(file, odd));
                }
            }
            Ok(_) => found.push(line.warning(file, "left out: it is here already")),
            Err(problem) => {
                let advice = "host:port, or [address]:port for IPv6";
                found.push(line.warning(file, problem).expected(advice));
            }
        }
    }
    (hosts, found)
}

/// One host, and what is odd about how it is written.
pub(super) fn host(text: &str) -> Result<(Target, Option<&'static str>), &'static str> {
    let (host, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').ok_or("left out: no port")?),
        None => text.split_once(':').ok_or("left out: no port")?,
    };
    if !text.starts_with('[') && rest.matches(':').count() > 1 {
        return Err("left out: an IPv6 address stands in brackets");
    }
    let (port, extra) = rest.split_once(':').map_or((rest, false), |(port, _)| (port, true));
    let (port, more) = leading_port(port).ok_or("left out: no port")?;
    let target = match host.trim().parse() {
        Ok(ip) => Target::Address(std::net::SocketAddr::new(ip, port)),
        Err(_) => {
            let name = HostName::parse(host.trim()).map_err(|_| "left out: no host name")?;
            Target::Named(name, port)
        }
    };
    let odd = match (extra, more) {
        (true, _) => Some("what follows the port is ignored"),
        (false, true) => Some("what follows the port's digits is ignored"),
        (false, false) => None,
    };
    Ok((target, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line() {
        for (text, hosts, problems) in [
            (
                "10.0.0.1:32767\n10.0.0.2:32767\n",
                &["10.0.0.1:32767", "10.0.0.2:32767"][..],
                &[][..],
            ),
            ("b:2\na:1", &["b:2", "a:1"], &[]),
            ("\n \r\n 10.0.0.1:32767 \r\n", &["10.0.0.1:32767"], &[]),
            ("# comment: 1\n#1.2.3.4:5\nx:1", &["x:1"], &[]),
            ("nonsense\nx:1", &["x:1"], &["h:1:1: warning: left out: no port"]),
            ("x:1:2", &["x:1"], &["what follows the port is ignored"]),
            ("x:12y", &["x:12"], &["what follows the port's digits"]),
            ("x:\nx:0\nx:70000\nx:y", &[], &["no port", "no port", "no port", "no port"]),
            ("x:1\nx:1\nX.:1", &["x:1"], &["h:2:1: warning: left out: it is", "here already"]),
            (
                "[fd00::1]:32767\n[::1]",
                &["[fd00::1]:32767"],
                &["h:2:1: warning: left out: no port"],
            ),
            ("fd00::1:32767", &[], &["in brackets"]),
            ("a b:1", &[], &["no host name"]),
            (":1", &[], &["no host name"]),
            ("", &[], &[]),
        ] {
            let (parsed, found) = parse(&"h".into(), text);
            let parsed: Vec<String> = parsed.iter().map(Target::to_string).collect();
            assert_eq!(parsed, hosts, "{text:?}");
            assert_eq!(found.0.len(), problems.len(), "{text:?}: {found}");
            for (diagnostic, part) in found.0.iter().zip(problems) {
                assert!(diagnostic.to_string().contains(part), "{text:?}: {diagnostic}");
            }
            assert!(!found.has_errors());
        }
    }
}
