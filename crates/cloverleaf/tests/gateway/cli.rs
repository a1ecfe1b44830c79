//! The commands beside the gateway: check, explain, status, echo, completions; usage errors; the first steps.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::client::get;
use testkit::command::{Ran, run};
use testkit::{Authority, Client, Gateway, Port, Step, Upstream, wait_until};

use crate::running::{PROGRAM, SOON, answer, eventually, everything_to, named, state};

/// Runs the program in a folder that has these files.
fn in_folder(files: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    run(PROGRAM, arguments, folder.path(), &[])
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr))
}

const GOOD: &str = r#"listeners:
  - {name: web, address: "127.0.0.1:8080"}
  - {name: inside, address: "127.0.0.1:8081"}
upstreams:
  - {name: a, host: 10.0.0.1, port: 3000}
  - name: b
    balance: leastRequests
    endpoints: [{address: "10.0.0.2:80", weight: 3}, {address: "b.test:81"}]
rules:
  - {name: stock, upstream: a, path: /stock, listeners: [inside]}
  - {name: api, upstream: a, path: /api, host: "*.x.test", stripPath: true}
  - {name: one, upstream: b, path: /one, matchMode: exact}
  - {name: gone, upstream: nobody, path: /gone}
  - {name: split, path: /split, upstreams: [{upstream: a, weight: 3}, {upstream: b}]}
"#;

const BAD: &str = r#"listeners:
  - {name: web, address: "127.0.0.1:99999"}
upstreams:
  - {name: a, host: 10.0.0.1, port: http}
  - {host: 10.0.0.2}
rules:
  - {upstream: a, path: /x, stripPath: maybe}
timeouts: {idle: soon}
"#;

#[test]
fn check_says_all_that_is_wrong_at_once() {
    let ran =
        in_folder(&[("bad.yaml", BAD), ("good.yaml", GOOD)], &["check", "bad.yaml", "good.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    for line in [
        "bad.yaml:2:26: error: listeners[0].address: ",
        "bad.yaml:4:37: error: upstreams[0].port: ",
        "bad.yaml:5:5: error: upstreams[1].name: missing",
        "bad.yaml:7:40: error: rules[0].stripPath: ",
        "bad.yaml:8:18: error: timeouts.idle: ",
        "bad.yaml: 5 errors: it would not be served",
        "good.yaml:13:28: warning: rules[3].upstream: ",
        "good.yaml: valid, 1 warning",
    ] {
        assert!(ran.stdout.lines().any(|l| l.starts_with(line)), "{line}\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("found \"maybe\", expected true or false"), "{}", ran.stdout);

    let ran = in_folder(
        &[("bad.yaml", BAD), ("good.yaml", GOOD)],
        &["check", "--output", "json", "bad.yaml", "good.yaml"],
    );
    assert_eq!(ran.code, Some(2));
    let all = json(&ran);
    assert_eq!((&all[0]["valid"], &all[1]["valid"]), (&false.into(), &true.into()));
    assert_eq!(all[0]["problems"].as_array().map(Vec::len), Some(5));
    let problem = &all[0]["problems"][1];
    for (key, value) in [
        ("severity", Value::from("error")),
        ("file", "bad.yaml".into()),
        ("line", 4.into()),
        ("column", 37.into()),
        ("key", "upstreams[0].port".into()),
        ("value", "http".into()),
    ] {
        assert_eq!(problem[key], value, "{key}");
    }
    assert!(problem["expected"].as_str().is_some_and(|e| e.contains("65535")));
    assert_eq!(all[0]["serves"], Value::Null);
    assert_eq!(all[1]["serves"]["listeners"][1]["name"], "inside");
}

#[test]
fn check_says_what_would_be_served() {
    let ran = in_folder(&[("good.yaml", GOOD)], &["check", "good.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    for line in [
        "listener web: http://127.0.0.1:8080",
        "  api: *.x.test /api… -> a",
        "  one: /one alone -> b",
        "  gone: /gone… -> 503: upstream nobody does not exist",
        "  split: /split… -> a (weight 3), b (weight 1)",
        "listener inside: http://127.0.0.1:8081",
        "  stock: /stock… -> a",
    ] {
        assert!(ran.stdout.lines().any(|l| l == line), "{line}\n{}", ran.stdout);
    }
    // A rule for one listener is shown there alone.
    assert_eq!(ran.stdout.matches("  stock: ").count(), 1);
}

#[test]
fn check_and_explain_know_a_mesh_and_its_files() {
    let gateway = "mesh: {config: proxy.conf}\nupstreams: [{name: s, via: mesh, port: 61000}]\n\
                   rules: [{upstream: s, path: /}]\n";
    let files = |mappings: &'static str| {
        [
            ("g.yaml", gateway),
            ("proxy.conf", "HOST 10.0.0.1\nPEERS hosts\n"),
            ("hosts.conf", "10.0.0.1:32767\n10.0.0.2:32767\n"),
            ("portmappings.conf", mappings),
        ]
    };
    let good = files("61000:30000:10:false\n");
    let ran = in_folder(&good, &["check", "g.yaml", "proxy.conf"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    for line in ["g.yaml: valid", "proxy.conf: valid", "mesh: 2 hosts, 1 mapping"] {
        assert!(ran.stdout.lines().any(|l| l == line), "{line}\n{}", ran.stdout);
    }
    let bad = files("61000:30000:10");
    for file in ["g.yaml", "proxy.conf"] {
        let ran = in_folder(&bad, &["check", file]);
        assert_eq!(ran.code, Some(2), "{}", ran.stdout);
        let wrong = "portmappings.conf:1:1: error: the file breaks off";
        assert!(ran.stdout.contains(wrong), "{}", ran.stdout);
    }
    let mut secured = good;
    secured[1].1 = "HOST 10.0.0.1\nSECURITY offered\n";
    for file in ["g.yaml", "proxy.conf"] {
        let ran = in_folder(&secured, &["check", file]);
        assert_eq!(ran.code, Some(2), "{}", ran.stdout);
        let wrong = "proxy.conf: error: cannot read certificates from svid.pem";
        assert!(ran.stdout.contains(wrong), "{}", ran.stdout);
    }
    let mut narrow = good;
    narrow[0].1 = "mesh: {config: proxy.conf, serve: true, ports: [{port: 80, upstream: s}]}\n\
                   upstreams: [{name: s, host: h}]\n";
    let ran = in_folder(&narrow, &["check", "g.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let warning = "warning: mesh.ports: nobody will listen on this port (found \"80\"";
    assert!(ran.stdout.contains(warning), "{}", ran.stdout);
    let ran = in_folder(&good, &["explain", "--config", "g.yaml", "http://a.test/x"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let endpoint = "  endpoint mesh:61000 weight 1\n    pod at host port 30000, 10 connections\n    \
                    then a pod of another of 2 hosts\n";
    assert!(ran.stdout.contains(endpoint), "{}", ran.stdout);
}

#[test]
fn check_goes_as_far_as_a_gateway_does_before_it_binds() {
    let tls = "listeners:\n  - name: s\n    address: 1\n    \
               tls: {certificates: [{certificate: c.pem, key: k.pem}]}\n";
    for (name, text) in [
        ("tls.yaml", tls),
        ("empty.yaml", ""),
        ("yaml.yaml", "rules: [\n"),
        ("bytes.yaml", "\u{0}"),
    ] {
        let ran = in_folder(&[(name, text)], &["check", name]);
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.stdout);
        assert!(
            ran.stdout.starts_with(name) && ran.stdout.contains(": error: "),
            "{name}: {}",
            ran.stdout
        );
    }
    let ran = in_folder(&[], &["check", "missing.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stdout.contains("missing.yaml: error: ") && ran.stdout.contains("No such file"),
        "{}",
        ran.stdout
    );
}

fn explained(arguments: &[&str]) -> Ran {
    let arguments = [&["explain", "-c", "good.yaml"], arguments].concat();
    in_folder(&[("good.yaml", GOOD)], &arguments)
}

#[test]
fn explain_says_which_way_a_request_goes_and_why() {
    let says = |request: &str, code: i32, lines: &[&str]| {
        let ran = explained(&[request]);
        assert_eq!(ran.code, Some(code), "{request}: {}{}", ran.stdout, ran.stderr);
        for line in lines {
            assert!(
                ran.stdout.lines().any(|l| l == *line),
                "{request}: no {line:?}\n{}",
                ran.stdout
            );
        }
    };
    says(
        "GET http://www.x.test:8080/api/items?q=1",
        0,
        &[
            "GET www.x.test:8080/api/items",
            "listener web: http://127.0.0.1:8080",
            "  not stock (good.yaml:10:5): is for listener inside",
            "rule api (good.yaml:11:5): *.x.test /api… -> a",
            "upstream a (roundRobin): gets /items?q=1",
            "  endpoint 10.0.0.1:3000 weight 1",
        ],
    );
    says(
        "http://x/one",
        0,
        &[
            "  not api (good.yaml:11:5): is for host *.x.test",
            "upstream b (leastRequests): gets /one",
            "  endpoint 10.0.0.2:80 weight 3",
            "  endpoint b.test:81 weight 1",
        ],
    );
    says(
        "http://x/gone",
        0,
        &["rule gone (good.yaml:13:5): /gone… -> 503: upstream nobody does not exist"],
    );
    says(
        "http://x/nothing",
        1,
        &["  not one (good.yaml:12:5): is for the path /one alone", "no rule matches: 404"],
    );
    // By its port, a listener; and what no rule is asked for.
    says("http://x:8081/stock", 0, &["listener inside: http://127.0.0.1:8081"]);
    says("http://x/.nanoproxy/health", 0, &["the gateway itself answers 200: its health path"]);
    says("http://x/a//b?c=1", 0, &["the gateway itself answers 307: a redirect to /a/b?c=1"]);
}

#[test]
fn explain_agrees_with_what_the_gateway_does() {
    let (a, b) = (named("a"), named("b"));
    let yaml = format!(
        "upstreams:\n  - {{name: a, host: 127.0.0.1, port: {}}}\n  - {{name: b, host: 127.0.0.1, port: {}}}\n\
         rules:\n  - {{upstream: a, path: /a, stripPath: true}}\n  \
         - {{upstream: b, host: \"*.b.test\", path: /}}\n  \
         - {{upstream: nobody, path: /n}}\n",
        a.address().port(),
        b.address().port()
    );
    let gateway = Gateway::new(PROGRAM, &yaml).start();
    for (host, path) in [
        ("x", "/a/b%2Fc?d=e"),
        ("x", "/ab"),
        ("X.b.TEST", "/"),
        ("y.x.b.test", "/"),
        ("x", "/n"),
        ("x", "/a/../n"),
        ("x", "/.nanoproxy/health"),
        ("x", "/nothing"),
    ] {
        let url = format!("http://{host}{path}");
        let config = gateway.config_file().display().to_string();
        let ran = run(
            PROGRAM,
            &["explain", "-c", &config, "--output", "json", &url],
            Path::new("/"),
            &[],
        );
        let told = json(&ran);
        let answer = gateway.get(host, path);
        match told["status"].as_u64() {
            Some(status) => assert_eq!(u64::from(answer.status), status, "{url}"),
            None => {
                let upstream = told["upstreams"][0]["name"].as_str().expect("an upstream");
                assert_eq!(answer.text(), upstream, "{url}");
                let target = told["target"].as_str().expect("a target");
                let requests = if upstream == "a" { a.requests() } else { b.requests() };
                let line = format!("GET {target} HTTP/1.1\r\n");
                assert!(requests.iter().any(|r| r.starts_with(&line)), "{url}: {line}");
            }
        }
    }
}

#[test]
fn explain_takes_headers_listeners_and_gives_json() {
    let ran = explained(&[
        "-H",
        "Host: www.x.test",
        "--listener",
        "inside",
        "--output",
        "json",
        "POST http://127.0.0.1/api",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let told = json(&ran);
    assert_eq!(told["request"]["method"], "POST");
    assert_eq!(told["request"]["host"], "www.x.test");
    assert_eq!(told["listener"], "inside");
    assert_eq!(told["rule"], serde_json::json!({ "name": "api", "place": "good.yaml:11:5" }));
    assert_eq!(told["passed_over"][0]["rule"], "stock");
    assert_eq!((&told["status"], &told["target"]), (&Value::Null, &"/".into()));
    assert_eq!(told["upstreams"][0]["endpoints"][0]["target"], "10.0.0.1:3000");

    for (arguments, says) in [
        (&["--listener", "none", "http://x/"][..], "expected one of web, inside"),
        (&["ftp://x/"], "neither http nor https"),
        (&["https://x/"], "no listener serves https"),
        (&["-H", "nonsense", "http://x/"], "Name: value"),
        (&["http://x/%zz"], "/%zz"),
        (&[], "REQUEST"),
    ] {
        let ran = explained(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
    let ran = in_folder(&[("bad.yaml", BAD)], &["explain", "-c", "bad.yaml", "http://x/"]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr.lines().filter(|l| l.starts_with("bad.yaml:")).count(),
        5,
        "{}",
        ran.stderr
    );
}

#[test]
fn status_shows_a_running_gateway() {
    let a = named("a");
    let gateway = Gateway::new(PROGRAM, &everything_to(&a)).start();
    for _ in 0..3 {
        assert_eq!(gateway.get("x", "/").status, 200);
    }
    assert_eq!(gateway.get("x", "/.nanoproxy/health").status, 200);
    let admin = gateway.admin_address().to_string();
    eventually("the requests are counted", || {
        state(&gateway)["upstreams"][0]["endpoints"][0]["requests"] == 3
    });
    let ran = run(PROGRAM, &["status", "--admin-address", &admin], Path::new("/"), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for part in [
        env!("CARGO_PKG_VERSION"),
        "ready",
        "default",
        &gateway.address().port().to_string(),
        "u",
        &a.address().to_string(),
    ] {
        assert!(ran.stdout.contains(part), "no {part:?}\n{}", ran.stdout);
    }
    let ran = run(
        PROGRAM,
        &["status", "--admin-address", &admin, "--output", "json"],
        Path::new("/"),
        &[],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let told = json(&ran);
    assert_eq!(told["listeners"][0]["requests"]["2xx"], 4);
    assert_eq!(told["upstreams"][0]["endpoints"][0]["requests"], 3);
    assert_eq!(told["latency"]["count"], 4);
}

#[test]
fn status_says_plainly_that_nobody_answers() {
    let nobody = Port::reserve().address().to_string();
    let stranger = Upstream::start([Step::ReadRequest, Step::send(answer("hello")), Step::Close]);
    let closes = Upstream::start([Step::Close]);
    for address in [nobody, stranger.address().to_string(), closes.address().to_string()] {
        let ran = run(PROGRAM, &["status", "--admin-address", &address], Path::new("/"), &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert!(ran.stderr.contains(&address) && ran.stdout.is_empty(), "{}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 2, "no plain message: {}", ran.stderr);
    }
}

/// A child of ours, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn echo_answers_with_what_it_received() {
    let port = Port::reserve();
    let at = port.address().to_string();
    let child = Command::new(PROGRAM).args(["echo", "--listen", &at]).stderr(Stdio::null()).spawn();
    let mut echo = Running(child.expect("the program"));
    eventually("echo listens", || Client::try_connect(port.address()).is_ok());
    let answer = get(port.address(), "x.test", "/some/path?q=1");
    assert_eq!(answer.status, 200);
    let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(told["method"], "GET");
    assert!(
        told.to_string().contains("/some/path") && told.to_string().contains("x.test"),
        "{told}"
    );
    // A second one says which address is taken.
    let ran = run(PROGRAM, &["echo", "--listen", &at], Path::new("/"), &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(&at), "{}", ran.stderr);
    terminate(&echo.0);
    let mut status = None;
    assert!(wait_until(SOON, || {
        status = echo.0.try_wait().expect("a child of ours");
        status.is_some()
    }));
    assert_eq!(status.and_then(|s| s.code()), Some(0));
}

/// SIGTERM for a child that has not been waited for.
fn terminate(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "cannot signal {pid}");
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = in_folder(&[], &["completions", shell]);
        assert_eq!(ran.code, Some(0), "{shell}");
        assert!(ran.stdout.contains("gateway") && ran.stdout.contains("admin-address"), "{shell}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["gateway", "--no-such-flag"],
        &["gateway", "--port", "0"],
        &["gateway", "--port", "http"],
        &["gateway", "--timeout", "soon"],
        &["gateway", "--workers", "0"],
        &["gateway", "--admin-address", "9180"],
        &["check"],
        &["status", "--admin-address", "nowhere"],
        &["status", "--output", "xml"],
        &["completions", "tcsh"],
        &["echo", "--listen", "9090"],
    ] {
        let ran = in_folder(&[("config.yaml", "rules: []\n")], arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["gateway", "--help"], &["help", "explain"]]
    {
        let ran = in_folder(&[], arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(!ran.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let a = named("a");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let yaml =
        format!("listeners:\n  - {{name: web, address: \"{address}\"}}\n{}", everything_to(&a));
    let mut gateway = Gateway::new(PROGRAM, &yaml).without_port().start_unready();
    assert_eq!(gateway.wait_exit(SOON), Some(1));
    assert!(
        gateway.stderr().contains(&address) && gateway.stderr().contains("in use"),
        "{}",
        gateway.stderr()
    );
    // The admin port's says which flag moves it.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.yaml"), everything_to(&a)).expect("a file");
    let port = Port::reserve();
    let ran = run(
        PROGRAM,
        &["gateway", "--admin-address", &address, "--port", &port.to_string()],
        folder.path(),
        &[],
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&address) && ran.stderr.contains("--admin-address"),
        "{}",
        ran.stderr
    );
    // So does the echo's.
    let yaml = format!("echo: {{address: \"{address}\"}}\n{}", everything_to(&a));
    let mut gateway = Gateway::new(PROGRAM, &yaml).start_unready();
    assert_eq!(gateway.wait_exit(SOON), Some(1));
    assert!(
        gateway.stderr().contains(&address) && gateway.stderr().contains("echo"),
        "{}",
        gateway.stderr()
    );
}

/// A file of `examples/`.
fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(path)
}

#[test]
fn the_examples_are_valid() {
    for path in ["quickstart/cloverleaf.yaml", "nanoproxy/config.yaml"] {
        let file = example(path).display().to_string();
        let ran = run(PROGRAM, &["check", &file], Path::new("/"), &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stdout);
        assert!(ran.stdout.contains(": valid\n"), "{path}: warnings\n{}", ran.stdout);
    }
    // The third needs a certificate, which its first lines say how to make.
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(example("gateway/cloverleaf.yaml")).expect("the example");
    std::fs::write(folder.path().join("cloverleaf.yaml"), text).expect("a file");
    let authority = Authority::new();
    let issued = authority.server(&["localhost"]);
    std::fs::create_dir(folder.path().join("tls")).expect("a folder");
    std::fs::copy(&issued.chain_file, folder.path().join("tls/cert.pem")).expect("a copy");
    std::fs::copy(&issued.key_file, folder.path().join("tls/key.pem")).expect("a copy");
    let ran = run(PROGRAM, &["check", "cloverleaf.yaml"], folder.path(), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains(": valid\n"), "{}", ran.stdout);
}

/// In a network of its own, where every port is free: starts the quickstart, sends what it says, and ends it.
const FIRST_STEPS: &str = r#"
ip link set lo up || exit 70
"$0" gateway -c "$1" 2>said & gateway=$!
for try in $(seq 100); do "$0" status >/dev/null 2>&1 && break; sleep 0.1; done
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n' >&3
cat <&3
kill -TERM $gateway; sleep 0.2; kill -TERM $gateway
wait $gateway; echo "code $?"
cat said >&2
"#;

#[test]
fn the_first_command_of_the_readme_works() {
    let file = example("quickstart/cloverleaf.yaml");
    let alone = Command::new("unshare").args(["-rn", "true"]).stderr(Stdio::null()).status();
    if alone.is_ok_and(|status| status.success()) {
        let folder = tempfile::tempdir().expect("a folder");
        let out = Command::new("unshare")
            .args(["-rn", "timeout", "30", "bash", "-c", FIRST_STEPS, PROGRAM])
            .arg(&file)
            .current_dir(folder.path())
            .output()
            .expect("unshare");
        let (said, told) =
            (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        if out.status.code() != Some(70) {
            assert!(told.starts_with("HTTP/1.1 200 "), "{told}{said}");
            assert!(told.contains("/hello") && told.ends_with("code 0\n"), "{told}");
            assert!(said.contains("try: curl http://127.0.0.1:8080/"), "{said}");
            return;
        }
    }
    // Without such a network, on free ports: the same file but for them.
    let text = std::fs::read_to_string(file).expect("the example");
    let ports = [Port::reserve(), Port::reserve()];
    let text = text.replace("8080", &ports[0].to_string()).replace("9090", &ports[1].to_string());
    let gateway = Gateway::new(PROGRAM, &text).without_port().start();
    let first = get(ports[0].address(), "127.0.0.1", "/hello");
    assert!(first.status == 200 && first.text().contains("/hello"), "{}", first.text());
    let hint = format!("try: curl http://127.0.0.1:{}/", ports[0]);
    gateway.expect_stderr(&hint, Duration::from_secs(5));
}
