//! TLS towards clients, built from the model: files read and checked, all problems reported at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use model::{
    Certificate, Diagnostic, Diagnostics, HostName, HostPattern, HttpVersions, TlsTermination,
};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};

use crate::certified;
use crate::domain::{self, ClientDomain};
use crate::leaf::Leaf;
use crate::pem::{self, Complaint};
use crate::provider;
use crate::sni::SniTable;
use crate::suites::CipherSuites;

/// TLS 1.3 tickets sent after a handshake. Each costs a sealing and some 200 bytes; a client that resumes
/// gets a new one with every connection.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// At most so many for clients that ask for a number (RFC 9149), as those that open several connections at
/// once do.
const TICKETS_ON_REQUEST_MAX: usize = 4;

/// Sessions kept in memory for TLS 1.2 clients without tickets.
const SESSIONS_MAX: usize = 1024;

/// Accepts TLS connections on a listener. Cheap to clone, shared by all worker threads.
#[derive(Clone)]
pub struct Termination {
    table: Arc<SniTable>,
    /// By the numbers in the table; the first is for clients that show nothing.
    domains: Arc<[Served]>,
    /// Every client gets a certificate, and none shows one: the hello need not be looked at first.
    uniform: bool,
    warnings: Arc<Diagnostics>,
}

/// How clients of one domain are served.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) domain: ClientDomain,
    pub(crate) config: Arc<ServerConfig>,
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are behind it.
        f.debug_struct("Termination").finish_non_exhaustive()
    }
}

impl Termination {
    /// Reads the certificates and keys and checks them: readable, at most 1 MiB, a key that parses and
    /// belongs to the first certificate of the chain; the same for the authorities of clients. Offers those
    /// versions of HTTP. Reads files, so not for a worker thread. What is in use already, in another termination,
    /// is taken from there and only read.
    ///
    /// # Errors
    /// All that is wrong, with the place of the certificate it is wrong with, and the warnings beside it.
    pub fn load(termination: &TlsTermination, versions: HttpVersions) -> Result<Self, Diagnostics> {
        Self::load_with(termination, versions, &CipherSuites::default())
    }

    /// The same with these cipher suites alone.
    ///
    /// # Errors
    /// As there.
    pub fn load_with(
        termination: &TlsTermination,
        versions: HttpVersions,
        suites: &CipherSuites,
    ) -> Result<Self, Diagnostics> {
        let mut loading = Loading::default();
        loading.domains.push(ClientDomain::default());
        for (index, certificate) in termination.certificates.iter().enumerate() {
            loading.certificate(certificate, termination.first_is_default && index == 0);
        }
        let Loading { table, domains, mut diagnostics, .. } = loading;
        if termination.certificates.is_empty() && termination.first_is_default {
            let place = model::Place::whole("TLS");
            diagnostics.push(Diagnostic::error(place, "", "no certificate is given"));
        }
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        let table = Arc::new(table);
        let uniform = termination.first_is_default && domains.len() == 1;
        let served = |domain: ClientDomain| {
            let offered = (termination, versions, suites);
            let config = Arc::new(server_config(offered, &table, &domain));
            Served { domain, config }
        };
        let domains = domains.into_iter().map(served).collect();
        Ok(Self { table, domains, uniform, warnings: Arc::new(diagnostics) })
    }

    /// What [`Self::load`] found odd but usable: certificates that have expired, are not valid yet, expire
    /// within seven days, or can never be chosen.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// Whether clients of some name must show a certificate, or may.
    #[must_use]
    pub fn verifies_clients(&self) -> bool {
        self.domains.len() > 1
    }

    /// What clients must show for a host, in lower case and without a port: the domain that a connection with
    /// this name as SNI would have. Empty stands for no name.
    #[must_use]
    pub fn domain(&self, host: &str) -> &ClientDomain {
        static NOTHING: ClientDomain = ClientDomain(None);
        let name = (!host.is_empty()).then_some(host);
        self.served(name).map_or(&NOTHING, |served| &served.domain)
    }

    /// The one configuration for everybody, if there is one.
    pub(crate) fn uniform(&self) -> Option<&Served> {
        self.domains.first().filter(|_| self.uniform)
    }

    /// How clients are served that ask for a name; `None` where no certificate is for it.
    pub(crate) fn served(&self, name: Option<&str>) -> Option<&Served> {
        self.domains.get(self.table.site(name)?.domain)
    }
}

/// What has been loaded so far.
#[derive(Default)]
struct Loading {
    table: SniTable,
    domains: Vec<ClientDomain>,
    diagnostics: Diagnostics,
    /// Of a domain, by its address.
    numbers: HashMap<usize, usize>,
    now: Option<SystemTime>,
}

impl Loading {
    /// Takes one certificate in, or says what is wrong with it.
    fn certificate(&mut self, certificate: &Certificate, is_default: bool) {
        let loaded = certified::load(&certificate.chain, &certificate.key);
        let domain = self.domain(certificate);
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(complaints) => {
                return complaints.into_iter().for_each(|c| self.complain(certificate, c));
            }
        };
        let Some(domain) = domain else { return };
        if is_default {
            self.table.set_fallback(&loaded, domain);
        }
        let own: Vec<HostPattern>;
        let names = match certificate.hosts.as_slice() {
            [] => {
                own = loaded.leaf.dns_names.iter().filter_map(|name| pattern(name)).collect();
                own.as_slice()
            }
            given => given,
        };
        for name in names {
            if !self.table.add(name, &loaded, domain) {
                let file = pem::describe(&certificate.chain);
                let problem = format!(
                    "the certificate in {file} is not used for {name}: an earlier one asks \
                     something else of clients"
                );
                let place = certificate.place.clone();
                self.diagnostics.push(Diagnostic::warning(place, "", problem));
            }
        }
        let now = *self.now.get_or_insert_with(SystemTime::now);
        let unused = names.is_empty() && !is_default;
        warn(certificate, &loaded.leaf, unused, now, &mut self.diagnostics);
    }

    /// The number of the domain of a certificate's clients.
    fn domain(&mut self, certificate: &Certificate) -> Option<usize> {
        let Some(verification) = &certificate.client_verification else { return Some(0) };
        let (domain, warning) = match domain::load(verification) {
            Ok(loaded) => loaded,
            Err(complaint) => {
                self.complain(certificate, complaint);
                return None;
            }
        };
        if let Some(problem) = warning {
            let place = certificate.place.clone();
            self.diagnostics.push(Diagnostic::warning(place, "", problem));
        }
        Some(self.number_of(domain))
    }

    fn number_of(&mut self, domain: ClientDomain) -> usize {
        let numbers = &mut self.numbers;
        let next = self.domains.len();
        let number = *numbers.entry(domain.key()).or_insert(next);
        if number == next {
            self.domains.push(domain);
        }
        number
    }

    fn complain(&mut self, certificate: &Certificate, complaint: Complaint) {
        let place = certificate.place.clone();
        let diagnostic = Diagnostic::error(place, "", complaint.problem)
            .value(complaint.found)
            .expected(complaint.expected);
        self.diagnostics.push(diagnostic);
    }
}

/// A name of a certificate; `None` for one that no client can ask for.
fn pattern(name: &str) -> Option<HostPattern> {
    match name.strip_prefix("*.") {
        Some(parent) => HostName::parse(parent).ok().map(HostPattern::OneLabel),
        None => HostName::parse(name).ok().map(HostPattern::Exact),
    }
}

fn server_config(
    (termination, versions, suites): (&TlsTermination, HttpVersions, &CipherSuites),
    table: &Arc<SniTable>,
    domain: &ClientDomain,
) -> ServerConfig {
    let tls_versions = provider::versions(termination.min_version);
    let builder = ServerConfig::builder_with_provider(suites.provider())
        .with_protocol_versions(tls_versions)
        .expect("there are cipher suites for both versions");
    let builder = match &domain.0 {
        None => builder.with_no_client_auth(),
        Some(domain) => builder.with_client_cert_verifier(domain.verifier.clone()),
    };
    let mut config = builder.with_cert_resolver(table.clone());
    config.alpn_protocols =
        crate::stream::alpn_served(versions).iter().map(|p| p.to_vec()).collect();
    let tickets = match &domain.0 {
        None => {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
            provider::tickets()
        }
        // There may be thousands of domains, and clients with certificates have tickets.
        Some(domain) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            domain.tickets.clone()
        }
    };
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
    }
    // Most clients only list what they know; see `provider::provider` for our order.
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.max_tls13_tickets = TICKETS_ON_REQUEST_MAX;
    config
}

fn warn(
    certificate: &Certificate,
    leaf: &Leaf,
    unused: bool,
    now: SystemTime,
    diagnostics: &mut Diagnostics,
) {
    let file = pem::describe(&certificate.chain);
    if let Some(words) = leaf.time_warning(now) {
        let problem = format!("the certificate in {file} {words}");
        diagnostics.push(Diagnostic::warning(certificate.place.clone(), "", problem));
    }
    if unused {
        let problem =
            format!("the certificate in {file} has no DNS name, so that it is never chosen");
        diagnostics.push(
            Diagnostic::warning(certificate.place.clone(), "", problem)
                .expected("a subject alternative name, or the hosts that it is for"),
        );
    }
}
