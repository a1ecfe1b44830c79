//! The one set of cryptography (aws-lc-rs) and the things that live as long as the process: ticket keys and
//! the machine's certificate authorities.
//!
//! Nothing is installed as a process default: every configuration names its provider.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore};

/// AES-128-GCM first, then the rest in rustls' order; the hybrid post-quantum key exchange where a client
/// offers it.
///
/// AES-128 keeps any session safe, and SHA-256, which comes with it, is done by the processor where SHA-384,
/// which comes with AES-256, is not: a tenth of what a handshake costs.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let ordered = || {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
        Arc::new(provider)
    };
    PROVIDER.get_or_init(ordered).clone()
}

fn is_aes_128(suite: CipherSuite) -> bool {
    use CipherSuite as C;
    matches!(
        suite,
        C::TLS13_AES_128_GCM_SHA256
            | C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The keys that seal session tickets: random, changed every six hours, kept for one more period. One set
/// for the process, so that a session resumes on any worker thread, on any listener and after a reload;
/// rustls resumes only for the same server name. `None` where the machine gives no randomness: then
/// sessions do not resume.
///
/// For clients that are not verified; each way to verify them has its own ([`new_tickets`]).
pub(crate) fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETS: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETS.get_or_init(new_tickets).clone()
}

/// Keys as those of [`tickets`], which open no other's tickets.
pub(crate) fn new_tickets() -> Option<Arc<dyn ProducesTickets>> {
    aws_lc_rs::Ticketer::new().ok()
}

/// The machine's certificate authorities and what went wrong in reading them.
pub(crate) struct SystemRoots {
    /// Possibly empty: then nothing can be verified, and connections fail closed.
    pub(crate) store: Arc<RootCertStore>,
    /// What could not be read, for a person.
    pub(crate) problems: Vec<String>,
}

/// Read once, when the first upstream asks for them. `SSL_CERT_FILE` and `SSL_CERT_DIR` are respected.
pub(crate) fn system_roots() -> &'static SystemRoots {
    static ROOTS: OnceLock<SystemRoots> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        let problems = found.errors.iter().map(ToString::to_string).collect();
        SystemRoots { store: Arc::new(store), problems }
    })
}

/// The protocol versions from a lowest one on.
pub(crate) fn versions(
    lowest: model::TlsVersion,
) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static FROM_1_2: [&rustls::SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match lowest {
        model::TlsVersion::V1_2 => &FROM_1_2,
        model::TlsVersion::V1_3 => &FROM_1_2[..1],
    }
}
