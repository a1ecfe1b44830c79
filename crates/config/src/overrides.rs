//! Flags and environment variables, which win over the file.
//!
//! Where they come from is the program's affair; here they are values that are applied to a decoded file.
//! What they replace must be plain: a port for one of several listeners is an error, not a guess.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Diagnostic, Listener, ListenerProtocol, Place, Snapshot, Verification};

use crate::context::Context;
use crate::decode::{Decoded, certificate_in_directory};
use crate::{ADMIN_ADDRESS_DEFAULT, AdminAddress};

/// What flags and environment say; the default says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// PORT: the port of the single listener. With several listeners it is an error.
    pub port: Option<u16>,
    /// TIMEOUT: in place of the head, idle, connect and response timeouts of the file. Those of single
    /// upstreams and rules stay.
    pub timeout: Option<Duration>,
    /// `CERT_PATH`: a directory with cert.pem and key.pem; the single listener becomes https with them. With
    /// several listeners it is an error. A relative one begins at the working directory.
    pub cert_path: Option<PathBuf>,
    /// `TLS_SKIP_VERIFY`: no https upstream's certificate is verified.
    pub tls_skip_verify: bool,
    /// DEBUG: `/.nanoproxy/config` is answered.
    pub debug: bool,
    /// `--admin-address`.
    pub admin: Option<AdminAddress>,
    /// Number of worker threads.
    pub workers: Option<usize>,
    /// Rules and upstreams come from elsewhere (`--kubernetes`): in the file they are an error, an https
    /// listener needs no certificates of its own, and these are the listeners of a file that names none;
    /// [`Self::port`] and [`Self::cert_path`] are in them already.
    pub routes_elsewhere: Option<Vec<Listener>>,
}

impl Overrides {
    /// Has the last word on a decoded file.
    pub(crate) fn apply(&self, cx: &mut Context<'_>, decoded: &mut Decoded) {
        let snapshot = &mut decoded.snapshot;
        self.apply_to_listener(cx, snapshot);
        if let Some(timeout) = self.timeout {
            let timeouts = &mut snapshot.timeouts;
            timeouts.head = timeout;
            timeouts.idle = timeout;
            timeouts.connect = timeout;
            timeouts.response = timeout;
        }
        if self.tls_skip_verify {
            for upstream in snapshot.upstreams.iter_mut().filter(|u| u.tls.is_some()) {
                let tls = Arc::make_mut(upstream).tls.as_mut();
                tls.map(Arc::make_mut)
                    .into_iter()
                    .for_each(|t| t.verification = Verification::Skip);
            }
        }
        snapshot.manners.config_path |= self.debug;
        if let Some(admin) = self.admin {
            decoded.admin = Some((admin, Place::whole("--admin-address")));
        }
        decoded.workers = self.workers.or(decoded.workers);
    }

    fn apply_to_listener(&self, cx: &mut Context<'_>, snapshot: &mut Snapshot) {
        let addresses = |listeners: &[Listener]| -> Vec<SocketAddr> {
            listeners.iter().map(|l| l.address).collect()
        };
        let elsewhere = self.routes_elsewhere.as_deref().map(addresses);
        if elsewhere == Some(addresses(&snapshot.listeners)) {
            return;
        }
        let count = snapshot.listeners.len();
        let single = match snapshot.listeners.as_mut_slice() {
            [single] => Some(single),
            _ => None,
        };
        let Some(listener) = single else {
            for (name, given) in
                [("PORT", self.port.is_some()), ("CERT_PATH", self.cert_path.is_some())]
            {
                if given && count > 1 {
                    let problem =
                        format!("the file has {count} listeners, and this is for a single one");
                    let place = Place::whole(name);
                    let diagnostic = Diagnostic::error(place, "listeners", problem);
                    cx.report
                        .push(diagnostic.expected("one listener in the file, or this left unset"));
                }
            }
            return;
        };
        if let Some(port) = self.port {
            listener.address.set_port(port);
        }
        if let Some(directory) = &self.cert_path {
            let tls = certificate_in_directory(cx, directory, Place::whole("CERT_PATH"));
            listener.protocol = ListenerProtocol::Https(Arc::new(tls));
        }
    }
}

/// Reports what would listen on one address with something else.
pub(crate) fn report_collisions(cx: &mut Context<'_>, decoded: &Decoded) {
    let admin = match &decoded.admin {
        Some((AdminAddress::Off, _)) => None,
        Some((AdminAddress::At(address), place)) => Some((*address, place.clone())),
        None => Some((ADMIN_ADDRESS_DEFAULT, cx.report.whole())),
    };
    let listeners = &decoded.snapshot.listeners;
    let mut taken: Vec<(SocketAddr, String)> =
        listeners.iter().map(|l| (l.address, format!("listener {}", l.name))).collect();
    for (key, user, wanted) in
        [("admin.address", "the admin port", admin), ("echo.address", "echo", decoded.echo.clone())]
    {
        let Some((address, place)) = wanted.filter(|(address, _)| address.port() != 0) else {
            continue;
        };
        if let Some((_, holder)) = taken.iter().find(|(a, _)| *a == address) {
            let problem = format!("{holder} has this address already");
            let diagnostic = Diagnostic::error(place, key, problem).value(address.to_string());
            cx.report.push(diagnostic.expected("an address of its own"));
        }
        taken.push((address, user.into()));
    }
}
