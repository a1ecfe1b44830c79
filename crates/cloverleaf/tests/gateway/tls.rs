//! TLS at listeners and towards upstreams: by name, verified, and never plain HTTP in its place.

use testkit::certs::Wanted;
use testkit::client::{Failure, Tls, fetch, get};
use testkit::{Authority, Client, Cloverleaf, Gateway, Issued, Port, Step, Upstream, wait_until};

use crate::running::{
    PROGRAM, SOON, answer, eventually, everything_to, named, reloads, said, start,
};
use crate::support::frames;

/// A listener `web` with these certificates and more keys of its `tls`.
fn secure(port: &Port, certificates: &[&Issued], more: &str) -> String {
    let one = |issued: &&Issued| {
        let (chain, key) = (issued.chain_file.display(), issued.key_file.display());
        format!("        - {{certificate: {chain}, key: {key}}}\n")
    };
    format!(
        "listeners:\n  - name: web\n    address: {}\n    tls:\n{more}      certificates:\n{}",
        port.address(),
        certificates.iter().map(one).collect::<String>()
    )
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn the_certificate_is_chosen_by_name() {
    let upstream = named("a");
    let authority = Authority::new();
    let exact = authority.server(&["a.test", "b.test"]);
    let wild = authority.server(&["*.wild.test"]);
    let both = authority.server(&["x.wild.test"]);
    let port = Port::reserve();
    let yaml = secure(&port, &[&exact, &wild, &both], "") + &everything_to(&upstream);
    let _gateway = start(&yaml);
    let shown = |name: &str| {
        let tls = Tls { authority_pem: None, ..Tls::trusting("", name) };
        let client = Client::connect_tls(port.address(), tls);
        let der = client.peer_certificate().expect("a certificate");
        [("exact", &exact), ("wild", &wild), ("both", &both)]
            .into_iter()
            .find(|(_, issued)| issued.chain_pem.replace('\n', "").contains(&base64(&der)))
            .map_or("another", |(which, _)| which)
    };
    for (name, which) in [
        ("a.test", "exact"),
        ("b.test", "exact"),
        ("B.Test", "exact"),
        ("y.wild.test", "wild"),
        // The exact name before the wildcard, wherever it stands.
        ("x.wild.test", "both"),
        // One label only; and nothing that fits: the first.
        ("y.x.wild.test", "exact"),
        ("wild.test", "exact"),
        ("unknown.test", "exact"),
        ("127.0.0.1", "exact"),
    ] {
        assert_eq!(shown(name), which, "{name}");
    }
}

/// Standard base64 without padding, as far as whole groups go.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |g: &[u8]| {
        let bits = u32::from(g[0]) << 16 | u32::from(g[1]) << 8 | u32::from(g[2]);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift) as usize & 63]))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

#[test]
fn versions_and_protocols_are_agreed_on() {
    let upstream = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let ports = [Port::reserve(), Port::reserve()];
    let _gateway = start(&(secure(&ports[0], &[&issued], "") + &everything_to(&upstream)));
    let new_only = secure(&ports[1], &[&issued], "      minVersion: \"1.3\"\n");
    let _strict = start(&(new_only + &everything_to(&upstream)));
    let base = Tls::trusting(authority.pem(), "a.test");
    for (alpn, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        for only_1_2 in [false, true] {
            let tls = Tls { alpn, only_1_2, ..base };
            let mut client = Client::connect_tls(ports[0].address(), tls);
            assert_eq!(client.alpn().as_deref(), agreed, "{alpn:?}");
            if agreed != Some("h2") {
                assert_eq!(client.request(REQUEST).expect("an answer").text(), "a");
            }
        }
    }
    // A client whose protocols are none of ours is told so instead of being misunderstood.
    assert!(Client::try_connect_tls(ports[0].address(), Tls { alpn: &["smtp"], ..base }).is_err());
    assert!(Client::try_connect_tls(ports[1].address(), Tls { only_1_2: true, ..base }).is_err());
    assert!(Client::try_connect_tls(ports[1].address(), base).is_ok());
}

#[test]
fn http2_over_tls_is_served() {
    let upstream = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let port = Port::reserve();
    let _gateway = start(&(secure(&port, &[&issued], "") + &everything_to(&upstream)));
    let tls = Tls { alpn: &["h2"], ..Tls::trusting(authority.pem(), "a.test") };
    let mut client = Client::connect_tls(port.address(), tls);
    let fields =
        [(":method", "GET"), (":scheme", "https"), (":path", "/h2"), (":authority", "a.test")];
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(frames::frame(frames::SETTINGS, 0, 0, &[]));
    let flags = frames::END_HEADERS | frames::END_STREAM;
    client.send(frames::frame(frames::HEADERS, flags, 1, &frames::block(&fields)));
    // The whole answer is in one DATA frame, whatever comes before it.
    let body = loop {
        let head = client.read_exactly(9).expect("a frame");
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.read_exactly(length).expect("a frame's payload");
        if head[3] == frames::DATA {
            break payload;
        }
    };
    assert_eq!(body, b"a");
    let request = upstream.requests().pop().expect("a request");
    assert!(request.starts_with("GET /h2 HTTP/1.1\r\nHost: a.test\r\n"), "{request}");
    assert!(request.contains("\r\nX-Forwarded-Proto: https\r\n"), "{request}");
}

/// The first bytes of a TLS 1.1 client: a ClientHello that knows nothing newer.
fn client_hello_1_1() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend_from_slice(&[7; 32]);
    // No session; TLS_RSA_ and TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA; no compression; no extensions.
    hello.extend_from_slice(&[0, 0, 4, 0, 0x2f, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(hello.len()).expect("short");
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[test]
fn old_versions_are_refused_with_an_alert() {
    let upstream = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let port = Port::reserve();
    let gateway = start(&(secure(&port, &[&issued], "") + &everything_to(&upstream)));
    let mut client = Client::connect(port.address());
    client.send(client_hello_1_1());
    let alert = client.read_to_close().expect("an alert, then the end");
    // Alert, fatal, protocol_version or handshake_failure: such a client has no signature algorithms either.
    assert_eq!((alert.first(), alert.get(5)), (Some(&21), Some(&2)), "{alert:?}");
    assert!(matches!(alert.get(6), Some(70 | 40)), "{alert:?}");
    let failed = "cloverleaf_tls_handshakes_total{listener=\"web\",result=\"no_shared_version\"}";
    eventually("the handshake is counted", || gateway.metric(failed) == Some(1.0));
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    // R19
    let upstream = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let port = Port::reserve();
    let gateway = start(&(secure(&port, &[&issued], "") + &everything_to(&upstream)));
    let mut client = Client::connect(port.address());
    client.send(REQUEST);
    let answer = client.read_response().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(answer.text().contains("HTTPS") && answer.text().contains("HTTP"), "{}", answer.text());
    assert_eq!(client.read_to_close().expect("the end"), b"", "bytes behind the answer");
    assert!(upstream.requests().is_empty());
    let refused =
        "cloverleaf_refused_requests_total{listener=\"web\",reason=\"plain_http_on_tls\"}";
    eventually("it is counted", || gateway.metric(refused) == Some(1.0));
}

#[test]
fn cert_path_serves_https_and_upstreams_learn_of_it() {
    let upstream = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let gateway = Gateway::new(PROGRAM, &everything_to(&upstream));
    let dir = gateway.dir().join("certs");
    std::fs::create_dir(&dir).expect("a folder");
    std::fs::copy(&issued.chain_file, dir.join("cert.pem")).expect("a copy");
    std::fs::copy(&issued.key_file, dir.join("key.pem")).expect("a copy");
    let path = dir.display().to_string();
    let gateway = gateway.env("CERT_PATH", path).start();
    let tls = Tls::trusting(authority.pem(), "a.test");
    let mut client = Client::connect_tls(gateway.address(), tls);
    assert_eq!(client.request(REQUEST).expect("an answer").text(), "a");
    let request = upstream.requests().pop().expect("a request");
    assert!(request.contains("\r\nX-Forwarded-Proto: https\r\n"), "{request}");
    assert!(request.contains("proto=https"), "{request}");
    assert_eq!(gateway.get("a.test", "/").status, 400);
    // The certificate is followed, which NanoProxy never did.
    let renewed = Authority::new();
    let new = renewed.server(&["a.test"]);
    std::fs::write(dir.join("cert.pem"), &new.chain_pem).expect("a file");
    std::fs::write(dir.join("key.pem"), &new.key_pem).expect("a file");
    eventually("the new certificate", || {
        Client::try_connect_tls(gateway.address(), Tls::trusting(renewed.pem(), "a.test")).is_ok()
    });
}

/// What can be wrong with the files of a certificate: what is done to them, and what is said.
type Damage = (&'static str, fn(&Issued, &Issued), &'static str);

const DAMAGES: [Damage; 5] = [
    (
        "no certificate",
        |of, _| std::fs::remove_file(&of.chain_file).expect("a file"),
        "cannot read certificates",
    ),
    (
        "no key",
        |of, _| std::fs::remove_file(&of.key_file).expect("a file"),
        "cannot read the private key",
    ),
    ("no PEM", |of, _| std::fs::write(&of.chain_file, "not PEM").expect("a file"), "certificate"),
    (
        "a certificate as key",
        |of, _| std::fs::write(&of.key_file, &of.chain_pem).expect("a file"),
        "private key",
    ),
    (
        "another's key",
        |of, other| std::fs::write(&of.key_file, &other.key_pem).expect("a file"),
        "key",
    ),
];

#[test]
fn bad_certificate_files_are_an_error_and_never_plain_http() {
    // R21 served plain HTTP instead.
    let upstream = named("a");
    let authority = Authority::new();
    let stray = authority.server(&["other.test"]);
    for (what, damage, says) in DAMAGES {
        let issued = authority.server(&["a.test"]);
        damage(&issued, &stray);
        let port = Port::reserve();
        let yaml = secure(&port, &[&issued], "") + &everything_to(&upstream);
        let mut gateway = Gateway::new(PROGRAM, &yaml).without_port().start_unready();
        assert_eq!(gateway.wait_exit(SOON), Some(2), "{what}");
        let line = said(&gateway, &format!("{}:6:11: error: ", gateway.config_file().display()));
        assert!(line.contains(says), "{what}: {line}");
        let secret = |issued: &Issued| issued.key_pem.lines().nth(1).map(str::to_owned);
        for key in [secret(&issued), secret(&stray)] {
            assert!(
                !gateway.stderr().contains(&key.expect("a key's line")),
                "{what}: a key is shown"
            );
        }
    }
    // With CERT_PATH as well: a directory without the files.
    let mut gateway = Gateway::new(PROGRAM, &everything_to(&upstream))
        .env("CERT_PATH", "/nowhere")
        .start_unready();
    assert_eq!(gateway.wait_exit(SOON), Some(2));
    assert!(gateway.stderr().contains("/nowhere/cert.pem"), "{}", gateway.stderr());
    assert!(upstream.requests().is_empty());
}

#[test]
fn bad_certificate_files_at_a_reload_leave_the_good_ones_in_use() {
    let upstream = named("a");
    let authority = Authority::new();
    let stray = authority.server(&["other.test"]);
    let issued = authority.server(&["a.test"]);
    let port = Port::reserve();
    let gateway = start(&(secure(&port, &[&issued], "") + &everything_to(&upstream)));
    let tls = Tls::trusting(authority.pem(), "a.test");
    for (count, (what, damage, says)) in DAMAGES.into_iter().enumerate() {
        let (_, refused) = reloads(&gateway);
        damage(&issued, &stray);
        eventually(what, || reloads(&gateway).1 > refused);
        gateway.expect_stderr(says, SOON);
        assert_eq!(gateway.metric("cloverleaf_config_valid"), Some(0.0), "{what}");
        let mut client = Client::connect_tls(port.address(), tls);
        assert_eq!(client.request(REQUEST).expect("an answer").text(), "a", "{what}");
        assert_eq!(get(port.address(), "a.test", "/").status, 400, "{what}: plain HTTP");
        // Whole again: the same bytes as in the beginning are good.
        std::fs::write(&issued.chain_file, &issued.chain_pem).expect("a file");
        std::fs::write(&issued.key_file, &issued.key_pem).expect("a file");
        eventually("it is valid again", || gateway.metric("cloverleaf_config_valid") == Some(1.0));
        assert!(reloads(&gateway).0 > count as u64);
    }
}

/// A TLS upstream that answers every request with `a`.
fn tls_upstream(issued: &Issued) -> Upstream {
    Upstream::scripted_tls(issued, &["http/1.1"], |_| {
        vec![Step::ReadRequest, Step::send(answer("a")), Step::Repeat]
    })
}

/// A file with one https upstream and more keys of it.
fn to_tls(upstream: &Upstream, more: &str) -> String {
    format!(
        "upstreams:\n  - name: u\n    host: 127.0.0.1\n    port: {}\n    scheme: https\n{more}\
         rules:\n  - {{upstream: u, path: /}}\n",
        upstream.address().port()
    )
}

/// One request that may ask for JSON.
fn ask(gateway: &Cloverleaf) -> testkit::Response {
    fetch(gateway.address(), "GET / HTTP/1.1\r\nHost: a.test\r\nAccept: application/json\r\n\r\n")
}

#[test]
fn upstreams_are_verified_unless_told_otherwise() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let ours = tls_upstream(&authority.server(&["127.0.0.1", "inside.test"]));
    let other_name = tls_upstream(&authority.server(&["inside.test"]));
    let self_signed = tls_upstream(&stranger.self_signed(&Wanted::server(&["127.0.0.1"])));
    let expired = tls_upstream(&authority.issue(&Wanted::server(&["127.0.0.1"]).expired()));
    let known = format!("      authorities: {}\n", authority.file().display());
    let named = known.clone() + "      serverName: inside.test\n";
    let skip = "      skipVerify: true\n".to_owned();
    for (what, upstream, tls, fine) in [
        ("the machine's authorities", &ours, "", false),
        ("self-signed", &self_signed, "", false),
        ("our authority", &ours, &*known, true),
        ("our authority, self-signed", &self_signed, &known, false),
        ("our authority, expired", &expired, &known, false),
        ("our authority, another name", &other_name, &known, false),
        ("another name, asked for", &other_name, &named, true),
        ("not verified", &self_signed, &skip, true),
    ] {
        let more = if tls.is_empty() { String::new() } else { format!("    tls:\n{tls}") };
        let gateway = Cloverleaf::gateway(PROGRAM, &to_tls(upstream, &more));
        let answer = ask(&gateway);
        if fine {
            assert_eq!((answer.status, answer.text().as_str()), (200, "a"), "{what}");
        } else {
            assert_eq!(answer.status, 502, "{what}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body["error"], "upstream_tls", "{what}");
            let failed = "cloverleaf_upstream_connections_total{upstream=\"u\",result=\"tls\"}";
            assert!(gateway.metric(failed).is_some_and(|count| count >= 1.0), "{what}");
        }
    }
    // R30: any value but an empty one.
    for (value, status) in [("0", 200), ("1", 200), ("", 502)] {
        let gateway =
            Gateway::new(PROGRAM, &to_tls(&self_signed, "")).env("TLS_SKIP_VERIFY", value).start();
        assert_eq!(ask(&gateway).status, status, "TLS_SKIP_VERIFY={value:?}");
    }
    let gateway = Gateway::new(PROGRAM, &to_tls(&self_signed, "")).arg("--tls-skip-verify").start();
    assert_eq!(ask(&gateway).status, 200);
}

#[test]
fn authorities_are_checked_and_followed() {
    let (first, second) = (Authority::new(), Authority::new());
    let upstream = tls_upstream(&second.server(&["127.0.0.1"]));
    let file = first.dir().join("trusted.pem");
    std::fs::write(&file, first.pem()).expect("a file");
    let yaml = to_tls(&upstream, &format!("    tls: {{authorities: {}}}\n", file.display()));
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml);
    assert_eq!(ask(&gateway).status, 502);
    std::fs::write(&file, second.pem()).expect("a file");
    eventually("the other authority is trusted", || ask(&gateway).status == 200);
    std::fs::write(&file, "nothing").expect("a file");
    eventually("the refusal", || reloads(&gateway).1 > 0);
    gateway.expect_stderr("trusted.pem", SOON);
    assert_eq!(ask(&gateway).status, 200);
    drop(gateway);
    let mut gateway = Gateway::new(PROGRAM, &yaml).start_unready();
    assert_eq!(gateway.wait_exit(SOON), Some(2));
    assert!(gateway.stderr().contains("config.yaml:"), "{}", gateway.stderr());
}

#[test]
fn an_answer_until_close_that_tls_cut_is_not_whole() {
    let authority = Authority::new();
    let issued = authority.server(&["127.0.0.1"]);
    let more = format!("    tls: {{authorities: {}}}\n", authority.file().display());
    for (end, whole) in [(Step::Close, true), (Step::Cut, false)] {
        let upstream = Upstream::scripted_tls(&issued, &[], move |_| {
            vec![Step::ReadHead, Step::send("HTTP/1.1 200 OK\r\n\r\nhalf of it"), end.clone()]
        });
        let gateway = Cloverleaf::gateway(PROGRAM, &to_tls(&upstream, &more));
        let mut client = gateway.connect();
        let answer = client.request(REQUEST);
        match answer {
            Ok(answer) => assert!(whole && answer.text() == "half of it", "delivered as complete"),
            Err(Failure::Cut(_) | Failure::Reset | Failure::Closed) => assert!(!whole),
            Err(other) => panic!("{other}"),
        }
        // To a client of HTTP/1.0 only the end of the connection tells.
        let mut old = gateway.connect();
        match old.request("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n") {
            Ok(answer) => assert!(whole && answer.text() == "half of it", "delivered as complete"),
            Err(Failure::Cut(_) | Failure::Reset | Failure::Closed) => assert!(!whole),
            Err(other) => panic!("{other}"),
        }
        assert!(wait_until(SOON, || upstream.connections() == 2));
    }
}
