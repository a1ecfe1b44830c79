//! Redirects: clients are sent where the file says, and nowhere else whatever they ask for.

use serde_json::Value;
use testkit::client::{Response, Tls, fetch};
use testkit::{Authority, Client, Cloverleaf, Gateway, Port};

use crate::running::{PROGRAM, eventually, start};
use crate::support::frames::{Outcome, Raw, request};

const RULES: &str = "
  - {name: moved, path: /old, replacePath: /new, redirect: {status: 301}}
  - {name: secure, path: /secure, redirect: {scheme: https, status: 308}}
  - {name: port, path: /port, redirect: {port: 8443, status: 307}}
  - {name: other, host: a.test, path: /other, redirect: {host: b.test}}
  - {name: seen, path: /form, setPath: /thanks, redirect: {status: 303}}
  - {name: below, path: /below, stripPath: true, redirect: {}}
  - {name: locked, path: /locked, redirect: {scheme: https}, apiKey: {header: x-key, value: sesame}}
  - {name: rest, host: evil.test, setPath: /, redirect: {host: a.test}}
";

fn ask(client: &mut Client, line: &str, fields: &str) -> Response {
    client.request(format!("{line} HTTP/1.1\r\n{fields}\r\n")).expect("an answer")
}

fn gateway(keys: &str) -> Cloverleaf {
    Cloverleaf::gateway(PROGRAM, &format!("{keys}\nrules:{RULES}"))
}

#[test]
fn clients_are_sent_where_the_rule_says() {
    let gateway = gateway("accessLog: {path: stdout}");
    let mut client = gateway.connect();
    for (asked, host, code, location) in [
        ("/old", "a.test", 301, "/new"),
        ("/old/x%2Fy%20z?q=/old", "a.test:8080", 301, "/new/x%2Fy%20z?q=/old"),
        ("/secure/x?y", "A.test:8080", 308, "https://a.test/secure/x?y"),
        ("/secure", "[::1]:80", 308, "https://[::1]/secure"),
        ("/port", "a.test", 307, "http://a.test:8443/port"),
        ("/other?x", "a.test", 302, "http://b.test/other?x"),
        ("/other", "a.test:81", 302, "http://b.test:81/other"),
        ("/form/1?a=b", "a.test", 303, "/thanks?a=b"),
        ("/below/x", "a.test", 302, "/x"),
        ("/below", "a.test", 302, "/"),
        // The client chooses its host, but not who is sent to it.
        ("/", "evil.test", 302, "http://a.test/"),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let line = format!("{method} {asked}");
            let response = ask(&mut client, &line, &format!("Host: {host}\r\n"));
            assert_eq!(response.status, code, "{line}");
            assert_eq!(response.header("location"), Some(location), "{line}");
            assert!(response.text().starts_with(&format!("{code}: ")), "{line}");
        }
    }
    client.send("HEAD /old HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_response_to("HEAD").expect("an answer");
    assert_eq!((head.status, head.header("location")), (301, Some("/new")));
    let json = ask(&mut client, "GET /old", "Host: a\r\nAccept: application/json\r\n");
    let body: Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!((&body["status"], json.header("location")), (&Value::from(301), Some("/new")));
    assert_eq!(ask(&mut client, "GET /locked", "Host: a\r\n").status, 403);
    assert_eq!(ask(&mut client, "GET /locked", "Host: a\r\nX-Key: sesame\r\n").status, 302);
    let log = "\"rule\":\"moved\"";
    eventually("logged", || gateway.stdout().lines().filter(|l| l.contains(log)).count() == 8);
    assert!(gateway.stdout().lines().filter(|l| l.contains(log)).all(|l| l.contains("301")));
    let mut h2 = Raw::connect(gateway.address());
    h2.headers(1, &request("GET", "/secure"), true);
    assert_eq!(h2.outcome(1), Outcome::Status(308));
}

/// A body that nobody will read does not stand in the way, nor become the next request.
#[test]
fn a_body_is_no_matter() {
    let gateway = gateway("");
    let fields = "Host: a.test\r\nContent-Length: 40\r\n";
    let mut client = gateway.connect();
    let body = "GET /secure HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    client.send(format!("POST /form HTTP/1.1\r\n{fields}\r\n{body}"));
    assert_eq!(client.read_response().expect("an answer").status, 303);
    assert_eq!(client.read_to_close().unwrap_or_default(), b"", "no second answer");
}

#[test]
fn no_request_makes_it_send_clients_to_others() {
    let gateway = gateway("redirectUncleanPaths: false");
    for (asked, location) in [
        ("/below//evil.test/x", "/evil.test/x"),
        ("/below///evil.test", "/evil.test"),
        ("/below/%2Fevil.test", "/%2Fevil.test"),
        ("/below/.//evil.test", "/.//evil.test"),
        ("/below@evil.test", "/@evil.test"),
        ("/below/%0d%0aX-Evil:%201", "/%0d%0aX-Evil:%201"),
        ("/secure//evil.test", "https://a.test/secure//evil.test"),
        ("/old/http://evil.test/", "/new/http://evil.test/"),
        ("/old?//evil.test", "/new?//evil.test"),
    ] {
        let sent = format!("GET {asked} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = fetch(gateway.address(), &sent);
        assert_eq!(response.header("location"), Some(location), "{asked}");
        assert!(response.header("x-evil").is_none());
    }
    for (asked, host) in [
        // What no host is never becomes one.
        ("/secure", "a.test/evil.test"),
        ("/secure", "evil.test@a.test"),
        ("/secure", "a.test evil.test"),
        ("/secure", "a.test\\evil.test"),
        ("/secure", ""),
    ] {
        let sent = format!("GET {asked} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = fetch(gateway.address(), &sent);
        assert_eq!((response.status, response.header("location")), (400, None), "{host}");
    }
    // A backslash is not taken at all, or at least as no slash.
    let response =
        fetch(gateway.address(), "GET /below/\\evil.test HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let location = response.header("location").unwrap_or_default();
    assert!(!location.starts_with("//") && !location.contains('\\'), "{location}");
}

#[test]
fn the_scheme_is_that_of_the_connection_or_what_a_trusted_hop_says() {
    let authority = Authority::new();
    let pair = authority.server(&["127.0.0.1"]);
    let [plain, trusting, secure] = [Port::reserve(), Port::reserve(), Port::reserve()];
    let yaml = format!(
        "listeners:
  - {{name: plain, address: \"{}\"}}
  - {{name: trusting, address: \"{}\", trustedHops: [127.0.0.0/8]}}
  - {{name: secure, address: \"{}\", tls: {{certificates: [{{certificate: c.pem, key: k.pem}}]}}}}
rules: [{{redirect: {{host: b.test}}}}]\n",
        plain.address(),
        trusting.address(),
        secure.address()
    );
    let gateway = Gateway::new(PROGRAM, &yaml).without_port();
    std::fs::write(gateway.dir().join("c.pem"), &pair.chain_pem).expect("a file");
    std::fs::write(gateway.dir().join("k.pem"), &pair.key_pem).expect("a file");
    let _gateway = gateway.start();
    for (port, proto, location) in [
        (&plain, "https", "http://b.test/"),
        (&trusting, "https", "https://b.test/"),
        (&trusting, "HTTPS, http", "https://b.test/"),
        (&trusting, "gopher", "http://b.test/"),
        (&trusting, "", "http://b.test/"),
    ] {
        let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let response = fetch(port.address(), &sent);
        assert_eq!(response.header("location"), Some(location), "{proto}");
    }
    let pem = authority.pem();
    let mut client = Client::connect_tls(secure.address(), Tls::trusting(pem, "127.0.0.1"));
    let response = ask(&mut client, "GET /", "Host: a.test:8443\r\n");
    assert_eq!(response.header("location"), Some("https://b.test:8443/"));
}

#[test]
fn check_warns_of_circles_and_explain_says_where_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!("rules:{RULES}  - {{name: circle, redirect: {{scheme: http}}}}\n");
    std::fs::write(dir.path().join("f.yaml"), yaml).expect("a file");
    let run = |arguments: &[&str]| testkit::command::run(PROGRAM, arguments, dir.path(), &[]);
    let checked = run(&["check", "f.yaml"]);
    let warning = "on listener default clients are sent to where they are";
    assert!(checked.stdout.contains(warning), "{}", checked.stdout);
    assert!(checked.stdout.contains("redirects with 308 to https\n"), "{}", checked.stdout);
    let explained = run(&["explain", "-c", "f.yaml", "GET http://a.test/old/x?y"]).stdout;
    assert!(explained.contains("  Location: /new/x?y\n"), "{explained}");
    let json =
        run(&["explain", "-c", "f.yaml", "--output", "json", "GET http://a.test:81/secure"]).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["status"], &json["location"]),
        (&308.into(), &"https://a.test/secure".into())
    );
    // What is served says so, too.
    let gateway = start(&format!(
        "listeners: [{{name: l, address: '127.0.0.1:{}'}}]\nrules:{RULES}",
        Port::reserve().address().port()
    ));
    let (_, config) = gateway.admin_get("/config");
    assert!(config.contains("\"redirect\""), "{config}");
}
