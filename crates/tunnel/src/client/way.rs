//! The way through tunnels for whoever dials in this process: targets that name one of the tunnels of a snapshot.
//!
//! Must not know who dials, nor where tunnels are declared. Start at [`Tunnels`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::{
    Diagnostics, Name, PemSource, Target, Tunnel, TunnelMode, TunnelTls, UpstreamTls, Verification,
};
use net::dial::{Connecting, DialError, Dialer, Refusal, Stream, Way};
use rustc_hash::FxHashMap;
use tls::ClientTls;

use super::{Client, ClientError, Protocol, Settings, Stats, To};
use crate::server::Mode;

/// The way through tunnels. Give it to a [`net::dial::Dialer`].
#[derive(Debug, Default)]
pub struct Tunnels {
    known: ArcSwap<FxHashMap<Name, Known>>,
    /// Of all that there ever were, so that figures only grow.
    stats: Mutex<FxHashMap<Name, Arc<Stats>>>,
}

/// A tunnel as it is served.
#[derive(Debug, Clone)]
struct Known {
    model: Arc<Tunnel>,
    tls: Option<(u64, Arc<ArcSwap<ClientTls>>)>,
    client: Arc<Client>,
}

/// Tunnels whose certificates have been read.
#[derive(Debug)]
pub struct Loaded(Vec<(Arc<Tunnel>, Option<Tls>)>);

/// What is shown and believed, and a number that is another where that is another.
#[derive(Debug)]
struct Tls {
    tls: ClientTls,
    print: u64,
}

impl Loaded {
    /// Reads the certificates of a snapshot's tunnels; with what was found odd but usable. Reads files, so not for a
    /// worker thread.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(tunnels: &[Arc<Tunnel>]) -> Result<(Self, Diagnostics), Diagnostics> {
        let (mut loaded, mut found) = (Vec::new(), Diagnostics::default());
        for tunnel in tunnels {
            match read_one(tunnel) {
                Ok(tls) => {
                    let warnings = tls.iter().flat_map(|tls| tls.tls.warnings().0.iter().cloned());
                    found.0.extend(warnings);
                    loaded.push((tunnel.clone(), tls));
                }
                Err(problems) => found.0.extend(problems.0),
            }
        }
        if found.has_errors() { Err(found) } else { Ok((Self(loaded), found)) }
    }
}

fn read_one(tunnel: &Tunnel) -> Result<Option<Tls>, Diagnostics> {
    if !tunnel.servers.have_tls() {
        return Ok(None);
    }
    // Before it is read: what changes in between is seen as a change the next time.
    let print = print(&tunnel.tls);
    let upstream = UpstreamTls {
        verification: tunnel.tls.verification.clone(),
        server_name: tunnel.tls.server_name.clone(),
    };
    let tls = ClientTls::load(&upstream, &tunnel.place)?;
    let tls = match &tunnel.tls.certificate {
        None => tls,
        Some(certificate) => tls.with_certificate(certificate)?,
    };
    let protocol = protocol(mode_of(tunnel.mode));
    Ok(Some(Tls { tls: tls.with_protocols(vec![protocol.to_vec()]), print }))
}

/// Another number for other certificates.
fn print(tls: &TunnelTls) -> u64 {
    let mut hasher = DefaultHasher::new();
    let authorities = match &tls.verification {
        Verification::Authorities(source) => Some(source),
        Verification::System | Verification::Skip => None,
    };
    let own = tls.certificate.iter().flat_map(|own| [&own.chain, &own.key]);
    for source in authorities.into_iter().chain(own) {
        match source {
            PemSource::Inline(text) => text.hash(&mut hasher),
            // One that cannot be read is complained of where it is used.
            PemSource::File(path) => std::fs::read(path).unwrap_or_default().hash(&mut hasher),
        }
    }
    (tls.verification == Verification::Skip, &tls.server_name).hash(&mut hasher);
    hasher.finish()
}

/// What is offered by ALPN to a server.
#[must_use]
pub fn protocol(mode: Mode) -> &'static [u8] {
    match mode {
        Mode::Grpc => b"h2",
        Mode::HttpConnect => b"http/1.1",
    }
}

fn mode_of(mode: TunnelMode) -> Mode {
    match mode {
        TunnelMode::Grpc => Mode::Grpc,
        TunnelMode::HttpConnect => Mode::HttpConnect,
    }
}

impl Tunnels {
    /// Goes through these from now on, in place of those before. Connections that are there go on; a tunnel that is the
    /// same keeps those to its server, and new certificates serve new ones. Servers are reached with this dialer.
    pub fn set(&self, loaded: Loaded, dialer: &Dialer) {
        let before = self.known.load();
        let mut known = FxHashMap::default();
        for (model, tls) in loaded.0 {
            let same = before.get(&model.name).filter(|old| old.is_as(&model));
            let tunnel = match same {
                Some(old) => {
                    let mut known = Known { model: model.clone(), ..old.clone() };
                    if let (Some((print, place)), Some(tls)) = (&mut known.tls, tls)
                        && *print != tls.print
                    {
                        *print = tls.print;
                        place.store(Arc::new(tls.tls));
                    }
                    known
                }
                None => self.begin(&model, tls, dialer),
            };
            known.insert(model.name.clone(), tunnel);
        }
        self.known.store(Arc::new(known));
    }

    fn begin(&self, model: &Arc<Tunnel>, tls: Option<Tls>, dialer: &Dialer) -> Known {
        let tls = tls.map(|tls| (tls.print, Arc::new(ArcSwap::from_pointee(tls.tls))));
        let settings = Settings {
            servers: model.servers.clone(),
            mode: mode_of(model.mode),
            tls: tls.as_ref().map(|(_, tls)| tls.clone()),
            extensions: true,
        };
        let stats = self.lock().entry(model.name.clone()).or_default().clone();
        let client = Client::counting(settings, dialer.clone(), stats);
        Known { model: model.clone(), tls, client }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Name, Arc<Stats>>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each of the tunnels that there are has counted, by its name.
    #[must_use]
    pub fn stats(&self) -> Vec<(Name, Arc<Stats>)> {
        let known = self.known.load();
        let mut stats: Vec<_> = known
            .iter()
            .map(|(name, tunnel)| (name.clone(), tunnel.client.stats.clone()))
            .collect();
        stats.sort_by(|one, other| one.0.cmp(&other.0));
        stats
    }

    async fn open(&self, target: &Target, within: Duration) -> Result<Stream, DialError> {
        let refused = |reason| DialError::Refused { target: target.to_string(), reason };
        let Target::Tunnelled(to) = target else { return Err(refused(Refusal::NoWay)) };
        let client = self.known.load().get(&to.tunnel).map(|known| known.client.clone());
        let client = client.ok_or_else(|| refused(Refusal::NoWay))?;
        let cluster = to.cluster.as_ref().map(ToString::to_string);
        let to = To { protocol: Protocol::Tcp, address: to.to.to_string(), cluster };
        match client.connect(&to, within).await {
            Ok(connection) => Ok(Stream::Way(Box::new(connection))),
            Err(ClientError::Timeout(waited)) => {
                Err(DialError::Timeout { target: target.to_string(), waited })
            }
            Err(ClientError::Busy) => Err(refused(Refusal::Busy)),
            Err(error) => Err(DialError::Way {
                target: target.to_string(),
                word: word(&error),
                source: Box::new(error),
            }),
        }
    }
}

/// As [`DialError::as_str`] has it.
fn word(error: &ClientError) -> &'static str {
    match error.as_str() {
        "server" | "no_agent" => "tunnel",
        other => other,
    }
}

impl Known {
    /// Whether the same servers are meant, and are spoken to in the same way; certificates may differ.
    fn is_as(&self, model: &Tunnel) -> bool {
        self.model.servers == model.servers && self.model.mode == model.mode
    }
}

impl Way for Tunnels {
    fn connect<'w>(
        &'w self,
        target: &'w Target,
        _: Option<SocketAddr>,
        within: Duration,
    ) -> Connecting<'w> {
        Box::pin(self.open(target, within))
    }
}
