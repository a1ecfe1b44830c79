//! Clients that must show a certificate, or may: by name, in both versions, and when a session resumes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cloverleaf_tls::{AcceptErrorKind, ClientDomain, Termination};
use model::{ClientVerification, HostName, HostPattern, PemSource, TlsTermination, TlsVersion};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::certs::Wanted;
use testkit::client::Tls;
use testkit::{Authority, Client, Issued};

use crate::common::{load, termination};
use crate::terminations::listen;

fn demand(authority: &Authority, optional: bool) -> Option<Arc<ClientVerification>> {
    let authorities = PemSource::Inline(authority.pem().as_bytes().into());
    Some(Arc::new(ClientVerification { authorities, optional }))
}

/// Certificates for `must.test` and `may.test`, whose clients are verified, and `open.test`, whose are not.
fn described(servers: &Authority, clients: &Authority) -> TlsTermination {
    let names = ["open.test", "must.test", "may.test"];
    let issued = names.map(|name| servers.server(&[name]));
    let mut described = termination(&issued.each_ref(), TlsVersion::V1_2);
    described.certificates[1].client_verification = demand(clients, false);
    described.certificates[2].client_verification = demand(clients, true);
    described
}

/// What a client gets: the server's greeting, or nothing.
fn outcome(address: SocketAddr, tls: Tls<'_>) -> Option<String> {
    let mut connection = Client::try_connect_tls(address, tls).ok()?;
    // In TLS 1.3 the client has done its part before the server has looked at the certificate.
    let words = connection.read_to_close().ok()?;
    connection.finish();
    String::from_utf8(words).ok()
}

#[test]
fn clients_are_verified_by_name() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let wanted = Wanted::client("somebody");
    let good = clients.issue(&wanted);
    let foreign = strangers.issue(&wanted);
    let expired = clients.issue(&wanted.clone().expired());
    let early = clients.issue(&wanted.not_yet_valid());
    let for_servers = clients.server(&["somebody.test"]);
    let bad = Err(AcceptErrorKind::BadClientCertificate);
    let none = Err(AcceptErrorKind::NoClientCertificate);
    let cases: [(&str, Option<&Issued>, Result<(), AcceptErrorKind>); 12] = [
        ("open.test", None, Ok(())),
        ("open.test", Some(&foreign), Ok(())),
        ("unknown.test", None, Ok(())),
        ("must.test", Some(&good), Ok(())),
        ("must.test", None, none),
        ("must.test", Some(&foreign), bad),
        ("must.test", Some(&expired), bad),
        ("must.test", Some(&early), bad),
        ("must.test", Some(&for_servers), bad),
        ("may.test", Some(&good), Ok(())),
        ("may.test", None, Ok(())),
        ("may.test", Some(&foreign), bad),
    ];
    let server = load(&described(&servers, &clients)).unwrap();
    let (address, handle) = listen(server, cases.len() * 2);
    let mut expected = Vec::new();
    for (name, identity, result) in cases {
        for only_1_2 in [false, true] {
            let tls = Tls { identity, only_1_2, authority_pem: None, ..Tls::trusting("", name) };
            let got = outcome(address, tls);
            let wanted = result.ok().map(|()| "http/1 full".to_owned());
            assert_eq!(got, wanted, "{name} {identity:?} {only_1_2}");
            expected.push(result);
        }
    }
    assert_eq!(handle.join().unwrap(), expected);
}

/// As `openssl req -x509` makes them, and as people then give them to the server.
#[test]
fn a_certificate_that_is_given_itself_is_accepted_while_it_is_valid() {
    let servers = Authority::new();
    let wanted = Wanted::client("somebody").authority();
    let own = servers.self_signed(&wanted);
    // Another key under the same name is another certificate.
    let other = servers.self_signed(&wanted);
    let expired = servers.self_signed(&wanted.clone().expired());
    let early = servers.self_signed(&wanted.not_yet_valid());
    let bad = Err(AcceptErrorKind::BadClientCertificate);
    for (given, shown, result) in [
        (&own, &own, Ok(())),
        (&own, &other, bad),
        (&expired, &expired, bad),
        (&early, &early, bad),
    ] {
        let mut described = termination(&[&servers.server(&["must.test"])], TlsVersion::V1_2);
        let authorities = PemSource::File(given.chain_file.clone());
        let verification = ClientVerification { authorities, optional: false };
        described.certificates[0].client_verification = Some(Arc::new(verification));
        let (address, handle) = listen(load(&described).unwrap(), 2);
        for only_1_2 in [false, true] {
            let tls = Tls::trusting(servers.pem(), "must.test");
            let got = outcome(address, Tls { identity: Some(shown), only_1_2, ..tls });
            assert_eq!(got.is_some(), result.is_ok(), "{only_1_2}");
        }
        assert_eq!(handle.join().unwrap(), [result, result]);
    }
}

#[test]
fn a_domain_is_what_is_demanded_and_outlives_a_reload() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let described = described(&servers, &clients);
    let (first, again) = (load(&described).unwrap(), load(&described).unwrap());
    assert!(first.verifies_clients());
    for name in ["open.test", "must.test", "may.test", "unknown.test", ""] {
        assert_eq!(first.domain(name), again.domain(name), "{name}");
    }
    assert_eq!(*first.domain("open.test"), ClientDomain::default());
    assert_eq!(first.domain("unknown.test"), first.domain(""));
    assert_ne!(first.domain("must.test"), first.domain("may.test"));
    assert_ne!(first.domain("must.test"), first.domain("open.test"));
    let mut other = described.clone();
    other.certificates[1].client_verification = demand(&strangers, false);
    assert_ne!(load(&other).unwrap().domain("must.test"), first.domain("must.test"));
    // The same demand under another name is the same domain.
    other.certificates[1].client_verification = demand(&clients, true);
    let same = load(&other).unwrap();
    assert_eq!(same.domain("must.test"), same.domain("may.test"));
    assert_eq!(same.domain("must.test"), first.domain("may.test"));
    other.certificates.truncate(1);
    assert!(!load(&other).unwrap().verifies_clients());
}

#[test]
fn all_that_is_wrong_with_authorities_is_said_at_once() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let mut described = described(&servers, &clients);
    let wrong = |authorities| Some(Arc::new(ClientVerification { authorities, optional: false }));
    described.certificates[0].client_verification =
        wrong(PemSource::File("/nowhere/ca.pem".into()));
    described.certificates[1].client_verification = wrong(PemSource::Inline(b"x"[..].into()));
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    described.certificates[2].client_verification = wrong(PemSource::Inline(broken[..].into()));
    described.certificates[2].key = PemSource::File("/nowhere/key.pem".into());
    let errors = load(&described).unwrap_err();
    let expected = [
        "cannot read certificates from /nowhere/ca.pem",
        "no certificate in the given text",
        "no certificate in the given text can be an authority",
        "cannot read the private key from /nowhere/key.pem",
    ];
    assert_eq!(errors.errors().count(), expected.len(), "{errors}");
    for (error, expected) in errors.errors().zip(expected) {
        assert!(error.problem.contains(expected), "{error}");
    }
}

/// Two certificates for one name, as an RSA beside an ECDSA one: the first one's demand holds for both.
#[test]
fn of_two_demands_for_one_name_the_first_counts() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let issued = [servers.server(&["a.test"]), servers.server(&["a.test"])];
    let mut described = termination(&issued.each_ref(), TlsVersion::V1_2);
    described.certificates[0].client_verification = demand(&clients, false);
    let server = load(&described).unwrap();
    assert_eq!(server.warnings().warnings().count(), 1);
    let warning = server.warnings().to_string();
    assert!(warning.contains("is not used for a.test: an earlier one asks"), "{warning}");
    assert_ne!(*server.domain("a.test"), ClientDomain::default());
    described.certificates[1].client_verification = demand(&clients, false);
    assert_eq!(load(&described).unwrap().warnings().0.len(), 0);
}

/// A client that keeps its sessions, with a certificate.
fn remembering(
    servers: &Authority,
    identity: Option<&Issued>,
    only_1_2: bool,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(servers.pem().as_bytes()).unwrap()).unwrap();
    let versions: &[_] =
        if only_1_2 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some(issued) => {
            let chain = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

/// One connection of such a client to a server: what it is greeted with.
fn visit(server: &Termination, client: &Arc<ClientConfig>, name: &'static str) -> Option<String> {
    const WITHIN: Duration = Duration::from_secs(20);
    let (address, handle) = listen(server.clone(), 1);
    let name = ServerName::try_from(name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(client.clone(), name).unwrap(), socket);
    let mut words = String::new();
    let greeted = tls.read_to_string(&mut words).is_ok();
    tls.conn.send_close_notify();
    let _ = tls.flush();
    drop(tls);
    handle.join().unwrap();
    greeted.then_some(words)
}

#[test]
fn sessions_resume_within_their_domain_alone() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let good = clients.issue(&Wanted::client("somebody"));
    let described = described(&servers, &clients);
    let (server, reloaded) = (load(&described).unwrap(), load(&described).unwrap());
    let mut open = described.clone();
    open.certificates[1].client_verification = None;
    let open = load(&open).unwrap();
    let mut stricter = described.clone();
    stricter.certificates[1].client_verification = demand(&strangers, false);
    let stricter = load(&stricter).unwrap();
    let full = Some("http/1 full".to_owned());
    let resumed = Some("http/1 resumed".to_owned());
    for only_1_2 in [false, true] {
        let client = remembering(&servers, Some(&good), only_1_2);
        assert_eq!(visit(&server, &client, "must.test"), full);
        assert_eq!(visit(&server, &client, "must.test"), resumed);
        assert_eq!(visit(&reloaded, &client, "must.test"), resumed);
        // Its session is of no use where another authority is asked for, nor the other way round.
        assert_eq!(visit(&stricter, &client, "must.test"), None);
        assert_eq!(visit(&open, &client, "must.test"), full);
        assert_eq!(visit(&open, &client, "must.test"), resumed);
        assert_eq!(visit(&server, &client, "must.test"), full);
        // Who has shown nothing brings nothing along.
        let nobody = remembering(&servers, None, only_1_2);
        assert_eq!(visit(&open, &nobody, "must.test"), full);
        assert_eq!(visit(&open, &nobody, "must.test"), resumed);
        assert_eq!(visit(&server, &nobody, "must.test"), None);
    }
}

/// A certificate that was good when the session began and is not any more.
#[test]
fn a_session_ends_with_its_certificate() {
    const SECONDS: u64 = 3;
    let (servers, clients) = (Authority::new(), Authority::new());
    let now = std::time::SystemTime::now();
    let (from, until) = (now - Duration::from_secs(60), now + Duration::from_secs(SECONDS));
    let brief = clients.issue(&Wanted::client("somebody").valid(from, until));
    let server = load(&described(&servers, &clients)).unwrap();
    let client = remembering(&servers, Some(&brief), false);
    assert_eq!(visit(&server, &client, "must.test").as_deref(), Some("http/1 full"));
    assert_eq!(visit(&server, &client, "must.test").as_deref(), Some("http/1 resumed"));
    // What is tested is a time in a certificate, to the second.
    std::thread::sleep(Duration::from_secs(SECONDS + 1));
    assert_eq!(visit(&server, &client, "must.test"), None);
}

/// Names matter to verification as they do to certificates: `unknown.test` is served by the first.
#[test]
fn the_default_certificates_demand_holds_for_unknown_names() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let mut described = termination(&[&servers.server(&["a.test"])], TlsVersion::V1_2);
    described.certificates[0].client_verification = demand(&clients, false);
    described.certificates[0].hosts = vec![HostPattern::Exact(HostName::parse("a.test").unwrap())];
    let server = load(&described).unwrap();
    assert_eq!(server.domain("a.test"), server.domain(""));
    let (address, handle) = listen(server, 2);
    for name in ["unknown.test", "127.0.0.1"] {
        let tls = Tls { authority_pem: None, ..Tls::trusting("", name) };
        assert_eq!(outcome(address, tls), None);
    }
    let none = Err(AcceptErrorKind::NoClientCertificate);
    assert_eq!(handle.join().unwrap(), [none, none]);
}
