//! Routes from a cluster, put together with the listeners and settings of the file (or of what stands in its place).
//!
//! Pure but for reading the operator's own certificates. Must not know the API server, nor how a program is swapped.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use config::Config;
use kubernetes::translate::Translation;
use model::{
    Certificate, Diagnostic, Diagnostics, HostPattern, ListenerProtocol, PemSource, Place, Scope,
    Severity, TlsTermination, Upstream,
};

/// Problems of objects that are shown beside the file's; the rest is counted.
const SHOWN_MAX: usize = 1_000;
/// Of one PEM file; the reader of certificates has the same bound.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Puts routes into a configuration again and again, keeping what is equal to before.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    /// The last terminations, by listener, and what they were made of.
    terminations: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    own: Arc<TlsTermination>,
    certificates: Arc<Vec<Certificate>>,
    default: Option<Arc<Certificate>>,
    made: Arc<TlsTermination>,
}

impl Merge {
    /// The configuration with the routes in every listener: plain ones in http, those for TLS in https.
    pub(crate) fn apply(&mut self, base: &Config, routes: &Translation) -> Config {
        let mut config = base.clone();
        config.snapshot.upstreams.clone_from(&routes.upstreams);
        let mut known = std::mem::take(&mut self.terminations).into_iter();
        for listener in &mut config.snapshot.listeners {
            let rules = match &mut listener.protocol {
                ListenerProtocol::Http => &routes.rules,
                ListenerProtocol::Https(tls) => {
                    let made = known
                        .next()
                        .filter(|known| known.fits(tls, routes))
                        .unwrap_or_else(|| Made::new(tls, routes));
                    *tls = made.made.clone();
                    self.terminations.push(made);
                    &routes.tls_rules
                }
            };
            listener.scopes = vec![Scope { hosts: HostPattern::Any, rules: rules.clone() }];
        }
        config
    }
}

impl Made {
    fn fits(&self, own: &Arc<TlsTermination>, routes: &Translation) -> bool {
        let same_default = match (&self.default, &routes.default_certificate) {
            (None, None) => true,
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            _ => false,
        };
        same_default && Arc::ptr_eq(&self.certificates, &routes.certificates) && self.own == *own
    }

    /// The cluster's default certificate, the listener's own, those of objects: in this order.
    fn new(own: &Arc<TlsTermination>, routes: &Translation) -> Self {
        let default = routes.default_certificate.clone();
        let first_is_default = default.is_some() || own.first_is_default;
        let certificates = default.iter().map(|certificate| (**certificate).clone());
        let made = TlsTermination {
            certificates: certificates
                .chain(own.certificates.iter().cloned())
                .chain(routes.certificates.iter().cloned())
                .collect(),
            first_is_default,
            min_version: own.min_version,
        };
        let certificates = routes.certificates.clone();
        Self { own: own.clone(), certificates, default, made: Arc::new(made) }
    }
}

/// Reads the certificates that the configuration names as files, so that they are not read again with every change
/// of an object. One that cannot be read stays a file, and is reported where it is loaded.
pub(crate) fn with_files_read(mut config: Config) -> Config {
    for listener in &mut config.snapshot.listeners {
        let ListenerProtocol::Https(tls) = &mut listener.protocol else { continue };
        for certificate in &mut Arc::make_mut(tls).certificates {
            for source in [&mut certificate.chain, &mut certificate.key] {
                if let PemSource::File(path) = source
                    && let Some(bytes) = read_bounded(path)
                {
                    *source = PemSource::Inline(bytes.into());
                }
            }
        }
    }
    config
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes).filter(|bytes| bytes.len() as u64 <= PEM_BYTES_MAX)
}

/// Takes out what cannot be loaded, by its place, so that one tenant's mistake stops nobody else: certificates are
/// left out, upstreams lose their endpoints. Whether there was anything to take out.
pub(crate) fn take_out(config: &mut Config, routes: &Translation, found: &Diagnostics) -> bool {
    let bad: HashSet<&Place> = found.errors().map(|error| &error.place).collect();
    let of_objects = |certificate: &Certificate| routes.certificates.contains(certificate);
    let mut any = false;
    for listener in &mut config.snapshot.listeners {
        let ListenerProtocol::Https(tls) = &mut listener.protocol else { continue };
        if tls.certificates.iter().any(|c| bad.contains(&c.place) && of_objects(c)) {
            let tls = Arc::make_mut(tls);
            tls.certificates.retain(|c| !(bad.contains(&c.place) && of_objects(c)));
            any = true;
        }
    }
    for upstream in &mut config.snapshot.upstreams {
        if upstream.tls.is_some() && bad.contains(&upstream.place) {
            let empty = Upstream { tls: None, endpoints: Vec::new(), ..(**upstream).clone() };
            *upstream = Arc::new(empty);
            any = true;
        }
    }
    any
}

/// What is wrong with objects, as what is wrong with a file is shown.
pub(crate) fn problems(routes: &Translation) -> impl Iterator<Item = Diagnostic> + '_ {
    let shown = routes.problems.iter().take(SHOWN_MAX).map(|problem| Diagnostic {
        severity: Severity::Warning,
        place: Place::whole(problem.object.to_string()),
        key: problem.reason.to_owned(),
        problem: problem.message.clone(),
        value: String::new(),
        expected: String::new(),
    });
    let more = routes.problems.len().saturating_sub(SHOWN_MAX);
    let more = (more > 0).then(|| {
        let said = format!("{more} more problems of objects are not shown");
        Diagnostic::warning(Place::whole("Kubernetes"), "", said)
    });
    shown.chain(more)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use model::{Listener, RuleSet, Snapshot, TlsVersion, TrustedHops};

    use super::*;

    fn certificate(place: &str) -> Certificate {
        Certificate {
            chain: PemSource::Inline(place.as_bytes().into()),
            key: PemSource::Inline(place.as_bytes().into()),
            hosts: Vec::new(),
            client_verification: None,
            place: Place::whole(place),
        }
    }

    fn base() -> Config {
        let own = TlsTermination {
            certificates: vec![certificate("file")],
            first_is_default: true,
            min_version: TlsVersion::V1_3,
        };
        let listener = |name: &str, protocol| Listener {
            name: name.into(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            protocol,
            protocols: model::HttpVersions::All,
            scopes: Vec::new(),
            trusted_hops: TrustedHops::default(),
            place: Place::whole("x"),
        };
        let listeners = vec![
            listener("http", ListenerProtocol::Http),
            listener("https", ListenerProtocol::Https(Arc::new(own))),
        ];
        Config {
            snapshot: Snapshot { listeners, ..Snapshot::default() },
            admin: config::AdminAddress::Off,
            mesh: None,
            echo: None,
            workers: None,
            files: Vec::new(),
        }
    }

    fn routes() -> Translation {
        let certificates = vec![certificate("Ingress a/x"), certificate("Ingress a/y")];
        Translation {
            rules: Arc::new(RuleSet::default()),
            tls_rules: Arc::new(RuleSet::default()),
            certificates: Arc::new(certificates),
            ..Translation::default()
        }
    }

    fn places(config: &Config) -> Vec<String> {
        let ListenerProtocol::Https(tls) = &config.snapshot.listeners[1].protocol else { panic!() };
        tls.certificates.iter().map(|c| c.place.to_string()).collect()
    }

    #[test]
    fn what_is_the_same_is_kept() {
        let (base, mut merge, mut routes) = (base(), Merge::default(), routes());
        let tls = |config: &Config| match &config.snapshot.listeners[1].protocol {
            ListenerProtocol::Https(tls) => tls.clone(),
            ListenerProtocol::Http => panic!(),
        };
        let one = merge.apply(&base, &routes);
        assert_eq!(places(&one), ["file", "Ingress a/x", "Ingress a/y"]);
        assert!(Arc::ptr_eq(&one.snapshot.listeners[0].scopes[0].rules, &routes.rules));
        assert!(Arc::ptr_eq(&one.snapshot.listeners[1].scopes[0].rules, &routes.tls_rules));
        let two = merge.apply(&base, &routes);
        assert!(Arc::ptr_eq(&tls(&one), &tls(&two)));
        routes.default_certificate = Some(Arc::new(certificate("Secret a/d")));
        let three = merge.apply(&base, &routes);
        assert_eq!(places(&three), ["Secret a/d", "file", "Ingress a/x", "Ingress a/y"]);
    }

    #[test]
    fn one_bad_certificate_is_taken_out_and_the_files_never() {
        let (base, routes) = (base(), routes());
        let mut config = Merge::default().apply(&base, &routes);
        let bad = |place: &str| {
            Diagnostics(vec![Diagnostic::error(Place::whole(place), "", "no certificate")])
        };
        assert!(!take_out(&mut config, &routes, &bad("file")));
        assert!(take_out(&mut config, &routes, &bad("Ingress a/x")));
        assert_eq!(places(&config), ["file", "Ingress a/y"]);
        assert!(!take_out(&mut config, &routes, &bad("Ingress a/x")));
    }
}
