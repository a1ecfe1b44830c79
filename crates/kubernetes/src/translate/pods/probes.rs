//! A container's probe as a health check of an upstream: what the kubelet asks is asked from here as well.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use model::{HealthCheck, HostName, Probe};

use super::json::{Fault, Shown};
use crate::objects::{Container, ContainerAsk, PortRef};

/// What a Pod that can serve answers a GET with. The kubelet takes 3xx as well; the dispatcher did not.
const GOOD_STATUSES: (u16, u16) = (200, 299);

/// The check for the endpoint of this container and port; `None` where the container has no probe.
pub(super) fn health_check(container: &Container, port: u16) -> Result<Option<HealthCheck>, Fault> {
    let Some(wanted) = &container.probe else { return Ok(None) };
    let (asked, probe) = match &wanted.ask {
        ContainerAsk::Http { path, port, tls, host } => {
            let host = host.as_deref().map(host_name).transpose()?;
            let path = request_target(path)?;
            (Some(port), Probe::Http { path, host, tls: *tls, statuses: GOOD_STATUSES })
        }
        ContainerAsk::Tcp { port } => (Some(port), Probe::Tcp),
        ContainerAsk::Other => (None, Probe::Tcp),
    };
    let asked = asked.map(|asked| number(container, asked)).transpose()?;
    let seconds = |seconds: u32| Duration::from_secs(seconds.max(1).into());
    Ok(Some(HealthCheck {
        probe,
        port: asked.filter(|asked| *asked != port),
        interval: seconds(wanted.period_s),
        timeout: seconds(wanted.timeout_s),
        rise: wanted.rise.max(1),
        fall: wanted.fall.max(1),
    }))
}

/// A path with its query as it can be sent: no space, no control character, which would end the request's
/// line.
fn request_target(text: &str) -> Result<Arc<str>, Fault> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("probe: {} is no path; the Pod's health is not checked", Shown(text));
        return Err(Fault::new("InvalidProbe", message));
    }
    Ok(if text.starts_with('/') { text.into() } else { format!("/{text}").into() })
}

fn host_name(text: &str) -> Result<HostName, Fault> {
    HostName::parse(text).map_err(|_| {
        let message =
            format!("probe: {} is no host name; the Pod's health is not checked", Shown(text));
        Fault::new("InvalidProbe", message)
    })
}

fn number(container: &Container, port: &PortRef) -> Result<u16, Fault> {
    match port {
        PortRef::Number(number) => Ok(*number),
        PortRef::Name(name) => {
            let of_name = |(n, _): &&(crate::objects::Text, u16)| n == name;
            container.ports.iter().find(of_name).map(|(_, port)| *port).ok_or_else(|| {
                let message = format!(
                    "probe: the container declares no port {}; the Pod's health is not checked",
                    Shown(name)
                );
                Fault::new("InvalidProbe", message)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ContainerProbe;

    fn check(ask: ContainerAsk) -> Result<HealthCheck, Fault> {
        let probe = ContainerProbe { ask, period_s: 10, timeout_s: 5, rise: 2, fall: 3 };
        let ports = vec![("http".into(), 3000), ("health".into(), 3001)];
        health_check(&Container { ports, probe: Some(probe) }, 3000).map(Option::unwrap)
    }

    fn http(port: PortRef, host: Option<&str>) -> ContainerAsk {
        let host = host.map(Into::into);
        ContainerAsk::Http { path: "/status".into(), port, tls: false, host }
    }

    #[test]
    fn the_document_s_example() {
        let expected = HealthCheck {
            probe: Probe::Http {
                path: "/status".into(),
                host: None,
                tls: false,
                statuses: (200, 299),
            },
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            rise: 2,
            fall: 3,
        };
        assert_eq!(check(http(PortRef::Number(3000), None)), Ok(expected));
    }

    #[test]
    fn ports_are_resolved() {
        for (ask, port, is_tcp) in [
            (http(PortRef::Name("http".into()), None), None, false),
            (http(PortRef::Name("health".into()), None), Some(3001), false),
            (http(PortRef::Number(9), Some("a.test")), Some(9), false),
            (ContainerAsk::Tcp { port: PortRef::Number(3000) }, None, true),
            (ContainerAsk::Tcp { port: PortRef::Name("health".into()) }, Some(3001), true),
            (ContainerAsk::Other, None, true),
        ] {
            let check = check(ask.clone()).unwrap();
            assert_eq!((check.port, check.probe == Probe::Tcp), (port, is_tcp), "{ask:?}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        assert!(check(http(PortRef::Name("none".into()), None)).is_err());
        assert!(check(http(PortRef::Number(1), Some("a b"))).is_err());
        for path in ["/a b", "/a\r\nX: y", "/\u{e4}"] {
            let ask = ContainerAsk::Http {
                path: path.into(),
                port: PortRef::Number(1),
                tls: false,
                host: None,
            };
            assert!(check(ask).is_err(), "{path:?}");
        }
        let without = Container { ports: Vec::new(), probe: None };
        assert_eq!(health_check(&without, 1), Ok(None));
    }
}
