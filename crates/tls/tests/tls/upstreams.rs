//! Verifying upstreams: who is trusted, and what a person is told otherwise.

use cloverleaf_tls::{ClientTls, Termination};
use model::{HostName, PemSource, UpstreamTls, Verification};
use testkit::certs::Wanted;
use testkit::upstream::{Step, Upstream};
use testkit::{Authority, Issued};

use crate::common::{client, connected, handshake, place, runtime, server};

/// What connecting says: `as_str` and the sentence.
fn refused(server: &Termination, client: &ClientTls, host: &str) -> (&'static str, String) {
    let (_, client) = runtime().block_on(handshake(server, client, host));
    let error = client.unwrap_err();
    (error.as_str(), error.to_string())
}

fn load(verification: Verification, server_name: Option<&str>) -> ClientTls {
    let server_name = server_name.map(|name| HostName::parse(name).unwrap());
    ClientTls::load(&UpstreamTls { verification, server_name }, &place()).unwrap()
}

fn authorities(issued: &Issued) -> Verification {
    Verification::Authorities(PemSource::File(issued.chain_file.clone()))
}

#[test]
fn failures_say_what_is_wrong() {
    let (trusted, foreign) = (Authority::named("made anew"), Authority::new());
    let renewed = Authority::named("made anew");
    let client = client(&trusted);
    let wanted = Wanted::server(&["a.test", "127.0.0.1"]);
    let unknown = ("unknown_issuer", "the certificate is signed by no authority trusted here");
    let cases = [
        (foreign.issue(&wanted), "a.test", unknown),
        (renewed.issue(&wanted), "a.test", unknown),
        (foreign.self_signed(&wanted), "a.test", unknown),
        (
            trusted.issue(&wanted),
            "b.test",
            ("name_mismatch", "the certificate is for a.test, 127.0.0.1, not b.test"),
        ),
        (
            trusted.issue(&wanted),
            "127.0.0.9",
            ("name_mismatch", "the certificate is for a.test, 127.0.0.1, not 127.0.0.9"),
        ),
        (
            trusted.issue(&wanted.clone().expired()),
            "a.test",
            ("expired", "the certificate has expired"),
        ),
        (
            trusted.issue(&wanted.clone().not_yet_valid()),
            "a.test",
            ("not_yet_valid", "the certificate is not valid yet"),
        ),
        (
            trusted.issue(&Wanted::client("a.test")),
            "a.test",
            ("bad_certificate", "the certificate is not acceptable"),
        ),
        (
            trusted.issue(&wanted),
            "not a name",
            ("bad_name", "\"not a name\" is no name that TLS can verify"),
        ),
    ];
    for (issued, host, (kind, sentence)) in cases {
        let server = server(&[&issued]);
        assert_eq!(refused(&server, &client, host), (kind, sentence.to_owned()), "{host}");
    }
}

#[test]
fn the_servers_of_given_authorities_are_trusted_by_name_and_address() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test", "127.0.0.1", "::1"])]);
    for host in ["a.test", "127.0.0.1", "::1"] {
        runtime().block_on(connected(&server, &client(&authority), host));
    }
}

#[test]
fn the_server_name_of_the_upstream_goes_before_the_endpoints_host() {
    let authority = Authority::new();
    // The first goes to whoever asks for no name, or for another.
    let server = server(&[&authority.server(&["b.test"]), &authority.server(&["a.test"])]);
    let verification = Verification::Authorities(PemSource::File(authority.file()));
    let client = load(verification, Some("a.test"));
    runtime().block_on(connected(&server, &client, "127.0.0.1"));
}

#[test]
fn a_self_signed_certificate_is_trusted_when_it_is_given() {
    let authority = Authority::new();
    let wanted = Wanted::server(&["a.test"]);
    for wanted in [wanted.clone(), wanted.clone().authority()] {
        let issued = authority.self_signed(&wanted);
        let client = load(authorities(&issued), None);
        let serving = server(&[&issued]);
        runtime().block_on(connected(&serving, &client, "a.test"));
        let (kind, sentence) = refused(&serving, &client, "b.test");
        assert_eq!(kind, "name_mismatch");
        assert_eq!(sentence, "the certificate is for a.test, not b.test");
        // Another with the same name is not that one.
        let other = server(&[&authority.self_signed(&wanted)]);
        assert_eq!(refused(&other, &client, "a.test").0, "unknown_issuer");
    }
    for (wanted, kind) in
        [(wanted.clone().expired(), "expired"), (wanted.not_yet_valid(), "not_yet_valid")]
    {
        let issued = authority.self_signed(&wanted);
        let client = load(authorities(&issued), None);
        assert_eq!(refused(&server(&[&issued]), &client, "a.test").0, kind);
    }
}

#[test]
fn without_verification_anybody_is_taken() {
    let authority = Authority::new();
    let client = load(Verification::Skip, None);
    let wanted = Wanted::server(&["other.test"]);
    for wanted in [wanted.clone().expired(), wanted] {
        let server = server(&[&authority.self_signed(&wanted)]);
        runtime().block_on(connected(&server, &client, "a.test"));
    }
}

#[test]
fn sessions_verified_otherwise_do_not_resume() {
    // Each upstream has its own sessions: one that trusts anybody must not make another trust.
    let authority = Authority::new();
    let server = server(&[&authority.self_signed(&Wanted::server(&["a.test"]))]);
    let trusting = load(Verification::Skip, None);
    runtime().block_on(connected(&server, &trusting, "a.test"));
    assert_eq!(refused(&server, &load(Verification::System, None), "a.test").0, "unknown_issuer");
}

#[test]
fn bad_authorities_are_reported() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let junk = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n".as_slice();
    let cases = [
        (PemSource::File("/nowhere/ca.pem".into()), "cannot read certificates"),
        (PemSource::File(issued.key_file), "no certificate in"),
        (PemSource::Inline(junk.into()), "can be an authority"),
    ];
    for (source, expected) in cases {
        let verification = Verification::Authorities(source);
        let upstream = UpstreamTls { verification, server_name: None };
        let errors = ClientTls::load(&upstream, &place()).unwrap_err();
        assert!(errors.to_string().contains(expected), "{errors}");
    }
    let mixed = [authority.pem().as_bytes(), junk].concat();
    let client = load(Verification::Authorities(PemSource::Inline(mixed.into())), None);
    assert_eq!(client.warnings().warnings().count(), 1);
}

#[test]
fn upstreams_that_break_off_are_told_apart() {
    let authority = Authority::new();
    let client = client(&authority);
    let cases = [
        (vec![Step::Close], &["eof"][..]),
        (vec![Step::Read(1), Step::Reset], &["io"][..]),
        (
            vec![Step::Read(1), Step::send("HTTP/1.1 400 Bad Request\r\n\r\n"), Step::Close],
            &["not_tls"][..],
        ),
        // A fatal alert, handshake_failure.
        (vec![Step::Read(1), Step::send(b"\x15\x03\x03\x00\x02\x02\x28")], &["alert"][..]),
    ];
    for (steps, expected) in cases {
        let upstream = Upstream::start(steps);
        let error = runtime().block_on(async {
            let socket = tokio::net::TcpStream::connect(upstream.address()).await.unwrap();
            client.connect(socket, "a.test").await.unwrap_err()
        });
        assert!(expected.contains(&error.as_str()), "{error:?}");
    }
}

#[test]
fn http_1_is_offered_to_upstreams() {
    use tokio::io::AsyncReadExt;
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let alpn = ["h2", "http/1.1"];
    let upstream =
        Upstream::scripted_tls(&issued, &alpn, |_| vec![Step::send("hello"), Step::Close]);
    let client = client(&authority);
    runtime().block_on(async {
        let socket = tokio::net::TcpStream::connect(upstream.address()).await.unwrap();
        let mut stream = client.connect(socket, "a.test").await.unwrap();
        assert_eq!(stream.alpn(), cloverleaf_tls::Protocol::Http1);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    });
}
