//! Loading certificates, and what clients of all kinds get.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use cloverleaf_tls::{AcceptErrorKind, CipherSuites, Protocol, Termination};
use model::{Diagnostics, HostName, HostPattern, HttpVersions, PemSource, TlsVersion};
use testkit::certs::Wanted;
use testkit::client::Tls;
use testkit::{Authority, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{certificate, client, handshake, load, runtime, server, termination};

/// The name that the certificate for a host turns out to be for, by verifying it under that host.
fn served(server: &Termination, authority: &Authority, host: &str) -> String {
    let (_, client) = runtime().block_on(handshake(server, &client(authority), host));
    match client {
        Ok(_) => "fits".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let first = authority.server(&["first.test", "127.0.0.1"]);
    let exact = authority.server(&["www.a.test"]);
    let wildcard = authority.server(&["*.a.test"]);
    let server = server(&[&first, &wildcard, &exact]);
    let first_for = |host| format!("the certificate is for first.test, 127.0.0.1, not {host}");
    let cases = [
        ("first.test", "fits".to_owned()),
        ("www.a.test", "fits".to_owned()),
        ("WWW.A.Test", "fits".to_owned()),
        ("other.a.test", "fits".to_owned()),
        // A wildcard is one label.
        ("x.y.a.test", first_for("x.y.a.test")),
        ("a.test", first_for("a.test")),
        ("unknown.test", first_for("unknown.test")),
        // Addresses are not sent as SNI.
        ("127.0.0.1", "fits".to_owned()),
        ("127.0.0.2", first_for("127.0.0.2")),
    ];
    for (host, expected) in cases {
        assert_eq!(served(&server, &authority, host), expected, "{host}");
    }
}

#[test]
fn an_exact_name_goes_before_a_wildcard() {
    let authority = Authority::new();
    let wildcard = authority.server(&["*.a.test", "wildcard.test"]);
    let exact = authority.server(&["www.a.test", "exact.test"]);
    let server = server(&[&wildcard, &exact]);
    let (addr, handle) = listen(server, 1);
    let connection = Client::connect_tls(addr, Tls::trusting(authority.pem(), "www.a.test"));
    let der = connection.peer_certificate().unwrap();
    drop(connection);
    assert!(contains(&der, b"exact.test") && !contains(&der, b"wildcard.test"));
    handle.join().unwrap();
}

#[test]
fn the_common_name_counts_only_without_alternative_names() {
    let authority = Authority::new();
    let first = authority.server(&["first.test"]);
    let named = authority.issue(&Wanted::server(&[]).common_name("cn.test"));
    let both = authority.issue(&Wanted::server(&["san.test"]).common_name("cn2.test"));
    let server = server(&[&first, &named, &both]);
    // A verifying client takes no common name; that it gets a certificate without names shows the choice.
    let chosen = served(&server, &authority, "cn.test");
    assert_eq!(chosen, "the certificate names no server, cn.test was wanted");
    let first = "the certificate is for first.test, not cn2.test";
    assert_eq!(served(&server, &authority, "cn2.test"), first);
}

#[test]
fn all_problems_are_reported_at_once() {
    let authority = Authority::new();
    let (good, other) = (authority.server(&["a.test"]), authority.server(&["b.test"]));
    let mut wrong_key = certificate(&good);
    wrong_key.key = PemSource::File(other.key_file.clone());
    let mut missing = certificate(&good);
    missing.chain = PemSource::File("/nowhere/chain.pem".into());
    missing.key = PemSource::File("/nowhere/key.pem".into());
    let mut swapped = certificate(&good);
    std::mem::swap(&mut swapped.chain, &mut swapped.key);
    let mut not_leaf_first = certificate(&good);
    let chain = format!("{}{}", authority.pem(), good.chain_pem);
    not_leaf_first.chain = PemSource::Inline(chain.into_bytes().into());
    let certificates = vec![wrong_key, missing, certificate(&good), swapped, not_leaf_first];
    let errors = load(&model::TlsTermination {
        certificates,
        first_is_default: true,
        min_version: TlsVersion::V1_2,
    })
    .unwrap_err();
    let expected = [
        "does not belong to the certificate",
        "cannot read certificates from /nowhere/chain.pem",
        "cannot read the private key from /nowhere/key.pem",
        "no certificate in",
        "no private key in",
        "does not begin with the key's certificate",
    ];
    assert_eq!(errors.errors().count(), expected.len(), "{errors}");
    for (error, expected) in errors.errors().zip(expected) {
        assert!(error.problem.contains(expected), "{error}");
        assert!(error.to_string().starts_with("a.yaml:1:1: error: "), "{error}");
    }
    let key_text = good.key_pem.lines().nth(1).unwrap();
    assert!(!errors.to_string().contains(key_text));
}

fn warnings(authority: &Authority, wanted: &Wanted) -> Diagnostics {
    server(&[&authority.issue(wanted)]).warnings().clone()
}

#[test]
fn odd_times_are_warned_of_and_served() {
    let authority = Authority::new();
    let wanted = Wanted::server(&["a.test"]);
    assert_eq!(warnings(&authority, &wanted), Diagnostics::default());
    let now = SystemTime::now();
    let soon = now + Duration::from_secs(3 * 24 * 60 * 60 + 60);
    let cases = [
        (wanted.clone().expired(), "expired 24 h ago"),
        (wanted.clone().not_yet_valid(), "is not valid for another 2"),
        (wanted.valid(now - Duration::from_secs(60), soon), "expires in 3 days"),
    ];
    for (wanted, expected) in cases {
        let warnings = warnings(&authority, &wanted);
        let problem = &warnings.warnings().next().unwrap().problem;
        assert!(problem.contains(expected), "{problem}");
        assert!(!warnings.has_errors());
    }
}

#[test]
fn a_certificate_that_is_never_chosen_is_warned_of() {
    let authority = Authority::new();
    let (named, nameless) = (authority.server(&["a.test"]), authority.server(&["127.0.0.1"]));
    assert_eq!(server(&[&nameless, &named]).warnings().0.len(), 0);
    let warned = server(&[&named, &nameless]);
    assert!(warned.warnings().to_string().contains("never chosen"));
}

#[test]
fn loading_again_takes_up_new_files() {
    let authority = Authority::new();
    let old = authority.server(&["old.test"]);
    let described = termination(&[&old], TlsVersion::V1_2);
    let before = load(&described).unwrap();
    authority.server(&["new.test"]).replace(&old);
    let after = load(&described).unwrap();
    assert_eq!(served(&before, &authority, "old.test"), "fits");
    assert_eq!(served(&after, &authority, "new.test"), "fits");
}

#[test]
fn ten_thousand_certificates_load() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let described = termination(&[&issued], TlsVersion::V1_2);
    let inline = |text: &str| PemSource::Inline(text.as_bytes().into());
    let mut one = described.certificates[0].clone();
    (one.chain, one.key) = (inline(&issued.chain_pem), inline(&issued.key_pem));
    let many = vec![one; 10_000];
    let loaded = load(&model::TlsTermination { certificates: many, ..described }).unwrap();
    assert_eq!(served(&loaded, &authority, "a.test"), "fits");
}

/// Serves so many connections in a thread: each is accepted, greeted with what it was, and closed.
pub(crate) fn listen(
    server: Termination,
    connections: usize,
) -> (SocketAddr, std::thread::JoinHandle<Vec<Result<(), AcceptErrorKind>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..connections {
            let (socket, _) = listener.accept().await.unwrap();
            match server.accept(socket).await {
                Ok(mut stream) => {
                    let alpn = if stream.alpn() == Protocol::Http2 { "h2" } else { "http/1" };
                    let resumed = if stream.resumed() { "resumed" } else { "full" };
                    let words = format!("{alpn} {resumed}");
                    // A client that refuses our certificate says so here, after TLS 1.3's handshake.
                    let _ = stream.write_all(words.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                    outcomes.push(Ok(()));
                }
                Err(mut refused) => {
                    if refused.error.kind() == AcceptErrorKind::PlainHttp {
                        refused.io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
                    }
                    outcomes.push(Err(refused.error.kind()));
                }
            }
        }
        outcomes
    };
    (address, std::thread::spawn(move || runtime().block_on(serve)))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn greeting(mut connection: Client) -> String {
    let words = connection.read_to_close().unwrap();
    connection.finish();
    String::from_utf8(words).unwrap()
}

#[test]
fn alpn_chooses_h2_then_http_1() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let cases: [(&[&str], _); 5] = [
        (&["h2", "http/1.1"], "h2 full"),
        (&["http/1.1", "h2"], "h2 full"),
        (&["http/1.1"], "http/1 full"),
        (&["http/1.0"], "http/1 full"),
        (&[], "http/1 full"),
    ];
    let (address, handle) = listen(server, cases.len() + 1);
    for (alpn, expected) in cases {
        let tls = Tls { alpn, ..Tls::trusting(authority.pem(), "a.test") };
        assert_eq!(greeting(Client::connect_tls(address, tls)), expected);
    }
    let foreign = Tls { alpn: &["smtp"], ..Tls::trusting(authority.pem(), "a.test") };
    assert!(Client::try_connect_tls(address, foreign).is_err());
    let outcomes = handle.join().unwrap();
    assert_eq!(outcomes.last(), Some(&Err(AcceptErrorKind::NoSharedProtocol)));
}

#[test]
fn the_lowest_version_is_kept() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let only_1_2 = Tls { only_1_2: true, ..Tls::trusting(authority.pem(), "a.test") };
    let (address, handle) = listen(server(&[&issued]), 1);
    assert_eq!(greeting(Client::connect_tls(address, only_1_2)), "http/1 full");
    handle.join().unwrap();

    let server = load(&termination(&[&issued], TlsVersion::V1_3)).unwrap();
    let (address, handle) = listen(server, 1);
    assert!(Client::try_connect_tls(address, only_1_2).is_err());
    assert_eq!(handle.join().unwrap(), [Err(AcceptErrorKind::NoSharedVersion)]);
}

#[test]
fn cipher_suites_that_are_named_are_the_only_ones_of_tls_1_2() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let described = termination(&[&issued], TlsVersion::V1_2);
    let with = |name: &str| {
        let suites = CipherSuites::named([name].into_iter()).unwrap();
        Termination::load_with(&described, HttpVersions::All, &suites).unwrap()
    };
    let any = Tls::trusting(authority.pem(), "a.test");
    let only_1_2 = Tls { only_1_2: true, ..any };
    let (address, handle) = listen(with("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), 1);
    assert_eq!(greeting(Client::connect_tls(address, only_1_2)), "http/1 full");
    handle.join().unwrap();
    // The certificate's key is of another kind: only TLS 1.3 is left.
    let (address, handle) = listen(with("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"), 2);
    assert!(Client::try_connect_tls(address, only_1_2).is_err());
    assert_eq!(greeting(Client::connect_tls(address, any)), "http/1 full");
    let ended = handle.join().unwrap();
    assert!(ended.contains(&Err(AcceptErrorKind::NoSharedCipher)), "{ended:?}");
}

/// A hello of TLS 1.0 as OpenSSL 1.0 sent it, without extensions.
const HELLO_TLS_1_0: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x2f, 0x01, 0x00, 0x00, 0x2b, 0x03, 0x01, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 0x00,
    0x00, 0x04, 0x00, 0x2f, 0x00, 0x35, 0x01, 0x00,
];

const NOT_TLS: [(&[u8], &[u8], AcceptErrorKind); 6] = [
    (
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        AcceptErrorKind::PlainHttp,
    ),
    (b"\x00\x01\x02", b"", AcceptErrorKind::NotTls),
    (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x15\x03", AcceptErrorKind::BadClientHello),
    (b"\x16\x03\x01", b"", AcceptErrorKind::Eof),
    (b"", b"", AcceptErrorKind::Eof),
    (HELLO_TLS_1_0, b"\x15\x03", AcceptErrorKind::NoSharedVersion),
];

fn tells_what_is_not_tls_apart(server: Termination) {
    let (address, handle) = listen(server, NOT_TLS.len());
    for (sent, answer, _) in NOT_TLS {
        let mut connection = Client::connect(address);
        connection.send(sent);
        connection.finish();
        // Bytes that were not read make the kernel's close a reset.
        let answered = connection.read_some().unwrap_or_default();
        assert!(answered.starts_with(answer), "{sent:?}: {answered:?}");
    }
    let kinds: Vec<_> = handle.join().unwrap().into_iter().map(Result::unwrap_err).collect();
    assert_eq!(kinds, NOT_TLS.map(|(_, _, kind)| kind));
}

#[test]
fn what_is_not_tls_is_told_apart() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    tells_what_is_not_tls_apart(server);
}

#[test]
fn sessions_resume_across_reloads_for_the_same_name_only() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test", "b.test"]);
    let (first, reloaded) = (server(&[&issued]), server(&[&issued]));
    let client = client(&authority);
    let resumed = |server: &Termination, host: &str| {
        runtime().block_on(async {
            let (server, client) = handshake(server, &client, host).await;
            let (mut server, mut client) = (server.unwrap(), client.unwrap());
            // The ticket comes with the first bytes.
            server.write_all(b"x").await.unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).await.unwrap();
            assert_eq!(server.resumed(), client.resumed());
            client.resumed()
        })
    };
    assert!(!resumed(&first, "a.test"));
    assert!(resumed(&first, "a.test"));
    assert!(resumed(&reloaded, "a.test"));
    assert!(!resumed(&reloaded, "b.test"));
    assert!(resumed(&reloaded, "b.test"));
}

#[test]
fn a_client_that_refuses_our_certificate_is_seen() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = server(&[&ours.server(&["a.test"])]);
    let (address, handle) = listen(server, 1);
    let tls = Tls { only_1_2: true, ..Tls::trusting(theirs.pem(), "a.test") };
    assert!(Client::try_connect_tls(address, tls).is_err());
    assert_eq!(handle.join().unwrap(), [Err(AcceptErrorKind::CertificateRefused)]);
}

fn pattern(text: &str) -> HostPattern {
    let name = |text: &str| HostName::parse(text).unwrap();
    match (text.strip_prefix("**."), text.strip_prefix("*.")) {
        _ if text == "*" => HostPattern::Any,
        (Some(rest), _) => HostPattern::ManyLabels(name(rest)),
        (_, Some(rest)) => HostPattern::OneLabel(name(rest)),
        _ => HostPattern::Exact(name(text)),
    }
}

/// What is said of a certificate goes before what it says of itself.
#[test]
fn declared_hosts_decide_which_certificate_is_used() {
    let authority = Authority::new();
    let declared = [
        ("second.test", &["**.a.test", "twice.test"][..]),
        ("third.test", &["*.a.test"]),
        ("fourth.test", &["x.a.test", "twice.test"]),
        ("fifth.test", &["**.deep.a.test"]),
        ("own.test", &[]),
        // Stands for a name that is another's.
        ("x.a.test", &["other.test"]),
    ];
    let issued: Vec<_> = declared.iter().map(|(name, _)| authority.server(&[*name])).collect();
    let mut described = termination(&issued.iter().collect::<Vec<_>>(), TlsVersion::V1_2);
    described.first_is_default = false;
    for (certificate, (_, hosts)) in described.certificates.iter_mut().zip(declared) {
        certificate.hosts = hosts.iter().map(|host| pattern(host)).collect();
    }
    let cases = [
        ("x.a.test", Some("fourth.test")),
        ("y.a.test", Some("third.test")),
        ("z.y.a.test", Some("second.test")),
        ("y.deep.a.test", Some("fifth.test")),
        ("deep.a.test", Some("third.test")),
        ("twice.test", Some("second.test")),
        ("TWICE.test", Some("second.test")),
        ("other.test", Some("x.a.test")),
        ("own.test", Some("own.test")),
        ("second.test", None),
        ("a.test", None),
        ("unknown.test", None),
        // No SNI.
        ("127.0.0.1", None),
    ];
    let server = load(&described).unwrap();
    for (host, wanted) in cases {
        let expected = match wanted {
            Some(name) if name == host => "fits".to_owned(),
            Some(name) => format!("the certificate is for {name}, not {}", host.to_lowercase()),
            None => "the upstream ended the handshake with the alert unrecognized_name".to_owned(),
        };
        let found = served(&server, &authority, host).replace(host, &host.to_lowercase());
        assert_eq!(found, expected, "{host}");
    }
    // Any host goes before the default, and is for no name as well.
    described.certificates[0].hosts = vec![HostPattern::Any];
    let server = load(&described).unwrap();
    for host in ["unknown.test", "127.0.0.1"] {
        let expected = format!("the certificate is for second.test, not {host}");
        assert_eq!(served(&server, &authority, host), expected);
    }
}

#[test]
fn without_certificates_every_handshake_is_refused() {
    let authority = Authority::new();
    let none = |first_is_default| model::TlsTermination {
        certificates: Vec::new(),
        first_is_default,
        min_version: TlsVersion::V1_2,
    };
    assert!(load(&none(true)).is_err());
    let server = load(&none(false)).unwrap();
    let (address, handle) = listen(server, 3);
    let tls = Tls::trusting(authority.pem(), "a.test");
    for only_1_2 in [false, true] {
        let refused = Client::try_connect_tls(address, Tls { only_1_2, ..tls }).err().unwrap();
        assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    }
    // What speaks no TLS is still told so.
    let mut plain = Client::connect(address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    assert!(plain.read_some().unwrap().starts_with(b"HTTP/1.1 400"));
    let refused = Err(AcceptErrorKind::UnrecognizedName);
    assert_eq!(handle.join().unwrap(), [refused, refused, Err(AcceptErrorKind::PlainHttp)]);
}

/// The hello is read before anything is decided, in whatever pieces it comes.
#[test]
fn what_is_not_tls_is_told_apart_where_the_name_decides() {
    let authority = Authority::new();
    let mut described = termination(&[&authority.server(&["a.test"])], TlsVersion::V1_2);
    described.first_is_default = false;
    tells_what_is_not_tls_apart(load(&described).unwrap());
}

#[test]
fn a_listener_offers_what_it_speaks() {
    let authority = Authority::new();
    let described = termination(&[&authority.server(&["a.test"])], TlsVersion::V1_2);
    let cases: [(_, &[&str], _); 4] = [
        (HttpVersions::Http1, &["h2", "http/1.1"], Some("http/1 full")),
        (HttpVersions::Http1, &["h2"], None),
        (HttpVersions::Http2, &["http/1.1", "h2"], Some("h2 full")),
        (HttpVersions::Http2, &["http/1.1"], None),
    ];
    for (versions, alpn, expected) in cases {
        let (address, handle) = listen(Termination::load(&described, versions).unwrap(), 1);
        let tls = Tls { alpn, ..Tls::trusting(authority.pem(), "a.test") };
        let found = Client::try_connect_tls(address, tls).ok().map(greeting);
        assert_eq!(found.as_deref(), expected, "{versions:?} {alpn:?}");
        handle.join().unwrap();
    }
}
