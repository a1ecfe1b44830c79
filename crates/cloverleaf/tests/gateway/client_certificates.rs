//! Clients that must show a certificate: by the name that they ask for, in every version, and on
//! connections that carry requests for another host.

use testkit::certs::Wanted;
use testkit::client::Tls;
use testkit::{Authority, Client, Cloverleaf, Issued, Port, Upstream};

use crate::running::{eventually, everything_to, named, reloads, said, start};
use crate::support::frames::{self, frame, request};

/// Servers' certificates for `open.test`, `must.test`, `same.test` and `may.test`; the last three ask for the
/// clients' authority, `may.test` without insisting.
struct Setting {
    servers: Authority,
    clients: Authority,
    issued: [Issued; 4],
    port: Port,
    upstream: Upstream,
}

impl Setting {
    fn new() -> Self {
        let servers = Authority::new();
        let names = ["open.test", "must.test", "same.test", "may.test"];
        let issued = names.map(|name| servers.server(&[name]));
        let (clients, port, upstream) = (Authority::new(), Port::reserve(), named("u"));
        Self { servers, clients, issued, port, upstream }
    }

    fn yaml(&self, authorities: &Authority) -> String {
        let ca = authorities.file();
        let asks = [
            String::new(),
            format!(", clientCertificates: {{authorities: {}}}", ca.display()),
            format!(", clientCertificates: {{authorities: {}}}", ca.display()),
            format!(", clientCertificates: {{authorities: {}, optional: true}}", ca.display()),
        ];
        let one = |(issued, asks): (&Issued, &String)| {
            let (chain, key) = (issued.chain_file.display(), issued.key_file.display());
            format!("        - {{certificate: {chain}, key: {key}{asks}}}\n")
        };
        let certificates: String = self.issued.iter().zip(&asks).map(one).collect();
        format!(
            "workers: 1\nlisteners:\n  - name: web\n    address: \"{}\"\n    tls:\n      \
             certificates:\n{certificates}{}",
            self.port.address(),
            everything_to(&self.upstream)
        )
    }

    fn start(&self) -> Cloverleaf {
        start(&self.yaml(&self.clients))
    }

    fn tls<'t>(&'t self, name: &'t str, identity: Option<&'t Issued>) -> Tls<'t> {
        Tls { identity, ..Tls::trusting(self.servers.pem(), name) }
    }

    /// The status of a request on a connection of its own; `None` where there is no connection.
    fn status(&self, tls: Tls<'_>, host: &str) -> Option<u16> {
        let mut client = Client::try_connect_tls(self.port.address(), tls).ok()?;
        ask(&mut client, host)
    }
}

fn ask(client: &mut Client, host: &str) -> Option<u16> {
    client.try_send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).ok()?;
    Some(client.read_response().ok()?.status)
}

#[test]
fn who_shows_no_good_certificate_is_not_served() {
    let setting = Setting::new();
    let gateway = setting.start();
    let good = setting.clients.issue(&Wanted::client("c"));
    let expired = setting.clients.issue(&Wanted::client("c").expired());
    let foreign = Authority::new().issue(&Wanted::client("c"));
    let cases: [(&str, Option<&Issued>, Option<u16>); 10] = [
        ("open.test", None, Some(200)),
        ("open.test", Some(&foreign), Some(200)),
        ("must.test", Some(&good), Some(200)),
        ("must.test", None, None),
        ("must.test", Some(&foreign), None),
        ("must.test", Some(&expired), None),
        ("may.test", None, Some(200)),
        ("may.test", Some(&good), Some(200)),
        ("may.test", Some(&foreign), None),
        ("may.test", Some(&expired), None),
    ];
    for (name, identity, wanted) in cases {
        for only_1_2 in [false, true] {
            let tls = Tls { only_1_2, ..setting.tls(name, identity) };
            assert_eq!(setting.status(tls, name), wanted, "{name} {only_1_2}");
        }
    }
    let count = |result: &str| {
        let (_, metrics) = gateway.admin_get("/metrics");
        let label = format!("result=\"{result}\"");
        let wanted = |line: &&str| line.contains("handshakes_total{") && line.contains(&label);
        let line = metrics.lines().find(wanted).unwrap_or_default();
        line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok())
    };
    eventually("counted", || count("no_client_certificate") == Some(2.0));
    eventually("counted", || count("bad_client_certificate") == Some(8.0));
}

/// A client that was let in for one name is not let in for another by naming it in the request.
#[test]
fn a_request_for_another_verification_is_misdirected() {
    let setting = Setting::new();
    let _gateway = setting.start();
    let good = setting.clients.issue(&Wanted::client("c"));
    for (name, identity, answers) in [
        ("open.test", None, [("open.test", 200), ("must.test", 421), ("may.test", 421)]),
        ("must.test", Some(&good), [("must.test", 200), ("same.test", 200), ("open.test", 421)]),
        ("may.test", None, [("may.test", 200), ("must.test", 421), ("open.test", 421)]),
        // Nobody's name is the first certificate's.
        (
            "unknown.test",
            None,
            [("unknown.test", 200), ("MUST.test.:443", 421), ("open.test", 200)],
        ),
    ] {
        let tls = Tls { authority_pem: None, ..setting.tls(name, identity) };
        let mut client = Client::connect_tls(setting.port.address(), tls);
        for (host, status) in answers {
            assert_eq!(ask(&mut client, host), Some(status), "{name} {host}");
        }
        // The connection is as good as before.
        assert_eq!(ask(&mut client, answers[0].0), Some(200), "{name}");
    }
    let reached = setting.upstream.requests();
    assert!(reached.iter().all(|r| !r.contains("MUST")));
    assert_eq!(reached.len(), 10);
}

#[test]
fn http_2_connections_are_not_coalesced_over_verifications() {
    let setting = Setting::new();
    let _gateway = setting.start();
    let good = setting.clients.issue(&Wanted::client("c"));
    let tls = Tls { alpn: &["h2"], ..setting.tls("must.test", Some(&good)) };
    let mut client = Client::connect_tls(setting.port.address(), tls);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // Without a dynamic table the statuses can be read.
    client.send(frame(frames::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    let mut status = |stream: u32, host: &str| {
        let mut fields = request("GET", "/");
        fields[3].1 = host;
        let flags = frames::END_HEADERS | frames::END_STREAM;
        client.send(frame(frames::HEADERS, flags, stream, &frames::block(&fields)));
        loop {
            let head = client.read_exactly(9).expect("a frame");
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = client.read_exactly(length).expect("a frame's payload");
            if head[3] == frames::HEADERS && u32::from(head[8]) == stream {
                return frames::status(&payload);
            }
        }
    };
    assert_eq!(status(1, "must.test"), 200);
    assert_eq!(status(3, "open.test"), 421);
    assert_eq!(status(5, "same.test"), 200);
    assert_eq!(status(7, "may.test"), 421);
}

/// A connection from before is worth what it is worth now.
#[test]
fn other_authorities_hold_from_the_next_request_on() {
    let setting = Setting::new();
    let gateway = setting.start();
    let (good, other) = (setting.clients.issue(&Wanted::client("c")), Authority::new());
    let mut old =
        Client::connect_tls(setting.port.address(), setting.tls("must.test", Some(&good)));
    assert_eq!(ask(&mut old, "must.test"), Some(200));
    let (applied, _) = reloads(&gateway);
    // The same again: sessions and connections go on.
    gateway.rewrite_by_rename(&(setting.yaml(&setting.clients) + "serverHeader: true\n"));
    eventually("a reload", || reloads(&gateway).0 == applied + 1);
    assert_eq!(ask(&mut old, "must.test"), Some(200));
    gateway.rewrite_by_rename(&setting.yaml(&other));
    eventually("a reload", || reloads(&gateway).0 == applied + 2);
    assert_eq!(ask(&mut old, "must.test"), Some(421));
    assert_eq!(setting.status(setting.tls("must.test", Some(&good)), "must.test"), None);
    let theirs = other.issue(&Wanted::client("c"));
    assert_eq!(setting.status(setting.tls("must.test", Some(&theirs)), "must.test"), Some(200));
    // Without a good one nothing changes.
    std::fs::write(other.file(), "no certificate").expect("a file");
    said(&gateway, &format!("{}:", gateway.config_file().display()));
    assert_eq!(setting.status(setting.tls("must.test", Some(&theirs)), "must.test"), Some(200));
}

#[test]
fn unknown_names_are_refused_where_the_file_says_so() {
    let setting = Setting::new();
    let yaml = setting.yaml(&setting.clients);
    let yaml = yaml.replace("    tls:\n", "    tls:\n      defaultCertificate: none\n");
    let yaml = yaml.replacen("}\n", ", hosts: [open.test, \"**.open.test\"]}\n", 1);
    let _gateway = start(&yaml);
    for (name, wanted) in [
        ("open.test", Some(200)),
        ("a.b.open.test", Some(200)),
        ("may.test", Some(200)),
        ("unknown.test", None),
        ("127.0.0.1", None),
    ] {
        for only_1_2 in [false, true] {
            let tls = Tls { authority_pem: None, only_1_2, ..setting.tls(name, None) };
            assert_eq!(setting.status(tls, name), wanted, "{name} {only_1_2}");
        }
    }
}
