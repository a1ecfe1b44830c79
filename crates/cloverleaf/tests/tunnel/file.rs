//! A YAML file in place of flags, and `check` for it.

use std::path::Path;

use crate::support::{Tunnel, echo, local, round_trip};
use testkit::certs::Wanted;
use testkit::command::{Ran, run};
use testkit::{Authority, Port};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cloverleaf");
const EXAMPLES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tunnel/ends.yaml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tunnel/forward.yaml"),
];

/// Runs the program in a folder that has this file.
fn with_file(text: &str, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ends.yaml"), text).unwrap();
    run(PROGRAM, arguments, folder.path(), &[])
}

#[test]
fn both_ends_take_their_flags_from_a_file_and_the_command_line_goes_before_it() {
    let authority = Authority::new();
    let (shown, agents) =
        (authority.server(&["127.0.0.1"]), authority.issue(&Wanted::client("agent")));
    let folder = tempfile::tempdir().unwrap();
    // Files are looked for beside the one that names them.
    for (name, from) in [
        ("server.crt", &shown.chain_file),
        ("server.key", &shown.key_file),
        ("agent.crt", &agents.chain_file),
        ("agent.key", &agents.key_file),
        ("ca.crt", &authority.file()),
    ] {
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("ends.yaml");
    std::fs::write(
        &file,
        "tunnelServer:\n  mode: http-connect\n  clusterCert: server.crt\n  clusterKey: server.key\n  \
         clusterCaCert: ca.crt\n  proxyStrategies: [destHost, default]\n  serverCount: 3\n  \
         tlsMinVersion: VersionTLS13\ntunnelAgent:\n  agentCert: agent.crt\n  agentKey: agent.key\n  \
         caCert: ca.crt\n  agentIdentifiers: host=one\n  noExtensions: true\n  syncInterval: 50ms\n",
    )
    .unwrap();
    let file = format!("--config={}", file.display());
    let tunnel = Tunnel::server("grpc", &["--server-count=1", &file]);
    let agent = tunnel.agent(&[&file]);
    tunnel.wait_ready();
    let known = "konnectivity_network_proxy_agent_known_server_count";
    assert_eq!(agent.metric(known), 1.0, "the command line's");
    let ready = "konnectivity_network_proxy_server_ready_backends{proxy_strategy=\"destHost\"}";
    assert_eq!(tunnel.metric(ready), 1.0);
    assert!(tunnel.server.wait_log("\"flow\":\"Buffered\""));
    round_trip(&mut tunnel.connected(echo())).unwrap();
}

#[test]
fn forward_takes_its_flags_from_a_file_and_more_ports_from_the_command_line() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &[]);
    let [one, two, three] = std::array::from_fn(|_| Port::reserve());
    let socket = tunnel.grpc_address();
    let socket = Path::new(socket.strip_prefix("unix:").unwrap());
    let file = socket.with_file_name("forward.yaml");
    // The first server is not there. Sockets are looked for beside the file.
    let text = format!(
        "tunnelForward:\n  server: [\"unix:none.sock\", \"unix:{}\"]\n  mode: grpc\n  \
         listen: [\"127.0.0.1:{one}\", \"127.0.0.1:{two}\"]\n  to: [\"{echo}\", \"{echo}\"]\n  \
         noExtensions: true\n",
        socket.file_name().unwrap().display(),
        echo = echo(),
    );
    std::fs::write(&file, text).unwrap();
    let ran = run(PROGRAM, &["check", file.to_str().unwrap()], Path::new("/"), &[]);
    assert!(
        ran.code == Some(0) && ran.stdout.contains("sections: tunnelForward"),
        "{}",
        ran.stdout
    );
    let arguments = vec![
        "forward".to_owned(),
        format!("--config={}", file.display()),
        "--mode=http-connect".to_owned(),
        format!("--listen=127.0.0.1:{three}"),
        format!("--to={}", echo()),
    ];
    let _forward = tunnel.forward_with(arguments, Port::reserve());
    for port in [&one, &two, &three] {
        round_trip(&mut local(port)).unwrap();
    }
    for (text, part) in [
        ("tunnelForward:\n  listen: [\"127.0.0.1:0\", \"here\"]\n", "tunnelForward.listen"),
        ("tunnelForward:\n  server: hub\n  socks5: 127.0.0.1:0\n", "\"hub\""),
        ("tunnelForward:\n  socks5: 127.0.0.1:0\n", "--server: missing"),
        ("tunnelForward:\n  server: hub:1\n", "no local port"),
        ("tunnelForward:\n  server: hub:1\n  listen: []\n", "no local port"),
        ("tunnelForward:\n  server: hub:1\n  socks5: 127.0.0.1:0\n  caCert: x.pem\n", "x.pem"),
    ] {
        let ran = with_file(text, &["check", "ends.yaml"]);
        assert_eq!(ran.code, Some(2), "{text}");
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let text = "tunnelServer:\n  serverport: 1\n  serverPort: many\n  keepaliveTime: 1 hour\n  \
                deleteExistingUdsFile: 2\n  config: x\ntunnelAgent:\n  noExtensions: maybe\n  \
                health-server-port: 1\ntunnels: {}\n";
    let ran = with_file(text, &["check", "ends.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stdout.contains("ends.yaml:10:1: error: tunnels: unknown key"), "{}", ran.stdout);
    let text = text.replace("tunnels: {}\n", "");
    let ran = with_file(&text, &["check", "ends.yaml"]);
    for line in [
        "ends.yaml:2:3: error: tunnelServer.serverport: unknown key (found \"1\", expected serverPort)",
        "ends.yaml:3:3: error: tunnelServer.serverPort: not a value of this key (found \"many\"",
        "ends.yaml:4:3: error: tunnelServer.keepaliveTime: not a value of this key",
        "expected a duration such as 1h2m3s",
        "ends.yaml:5:3: error: tunnelServer.deleteExistingUdsFile",
        "ends.yaml:6:3: error: tunnelServer.config: unknown key",
    ] {
        assert!(ran.stdout.contains(line), "{line}\n{}", ran.stdout);
    }
    let ran = with_file(&text, &["tunnel", "agent", "-c", "ends.yaml"]);
    assert_eq!(ran.code, Some(2));
    for part in ["ends.yaml:8:3", "true or false", "ends.yaml:9:3", "expected healthServerPort"] {
        assert!(ran.stderr.contains(part), "{part}\n{}", ran.stderr);
    }
    for (text, part) in [
        ("tunnelServer: {}\n", "the section tunnelAgent"),
        ("rules: []\n", "no file of a tunnel"),
        ("tunnelAgent: [\n", "not YAML"),
    ] {
        let ran = with_file(text, &["tunnel", "agent", "-c", "ends.yaml"]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(part), "{text}: {}", ran.stderr);
    }
    let ran = run(PROGRAM, &["tunnel", "agent", "-c", "/does/not/exist"], Path::new("/"), &[]);
    assert!(ran.stderr.contains("cannot be read"), "{}", ran.stderr);
}

#[test]
fn check_looks_at_what_a_file_names() {
    let authority = Authority::new();
    let shown = authority.server(&["127.0.0.1"]);
    let (certificate, key) = (shown.chain_file.display(), shown.key_file.display());
    let text = |key: &dyn std::fmt::Display, more: &str| {
        format!(
            "tunnelServer:\n  udsName: clients.sock\n  serverPort: 0\n  clusterCert: {certificate}\n  \
             clusterKey: {key}\n{more}"
        )
    };
    let weak =
        "  cipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n";
    let ran = with_file(&text(&key, weak), &["check", "ends.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    for part in ["valid, 1 warning", "sections: tunnelServer", "TLS_RSA_WITH_AES_128_CBC_SHA"] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    for (text, part) in [
        (text(&"/does/not/exist", ""), "/does/not/exist"),
        (text(&key, "  cipherSuites: [AES]\n"), "unknown cipher suite"),
        (text(&key, "  cipherSuites: TLS_AES_128_GCM_SHA256\n"), "no cipher suite of TLS 1.2"),
        (text(&key, "  mode: socks\n"), "grpc or http-connect"),
        ("tunnelAgent:\n  agentIdentifiers: zone=a\n".to_owned(), "zone"),
    ] {
        let ran = with_file(&text, &["check", "ends.yaml"]);
        assert_eq!(ran.code, Some(2), "{text}");
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    let ran = with_file(&text(&key, ""), &["check", "--output=json", "ends.yaml"]);
    assert!(ran.stdout.contains("\"tunnelServer\""), "{}", ran.stdout);
}

#[test]
fn the_examples_have_only_keys_that_there_are() {
    for example in EXAMPLES {
        let ran = run(PROGRAM, &["check", example], Path::new("/"), &[]);
        // Their certificates are not there; everything else is right.
        let wrong: Vec<_> = ran.stdout.lines().filter(|line| line.contains(": error: ")).collect();
        assert!(!wrong.is_empty(), "{}", ran.stdout);
        for line in wrong {
            assert!(line.contains("cannot be read") || line.contains("No such file"), "{line}");
        }
    }
}
