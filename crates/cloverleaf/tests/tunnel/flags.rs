//! Flags that are wrong are refused by name, with exit code 2.

use std::path::Path;

use testkit::command::run;

#[test]
fn what_is_wrong_is_named() {
    for (arguments, parts) in [
        (&["server"][..], &["--server-cert", "--server-key"][..]),
        (&["server", "--mode=socks"], &["--mode", "socks", "grpc or http-connect"]),
        (&["server", "--uds-name=/x"], &["--server-port", "0", "--uds-name"]),
        (
            &["server", "--uds-name=/x", "--server-port=0", "--server-cert=a", "--server-key=b"],
            &["no TLS"],
        ),
        (&["server", "--uds-name=/x", "--server-port=0"], &["--cluster-cert"]),
        (&["server", "--server-cert=a"], &["--server-cert", "--server-key", "both"]),
        (&["server", "--server-cert=a", "--server-key=b"], &["--server-ca-cert"]),
        (
            &[
                "server",
                "--uds-name=/x",
                "--server-port=0",
                "--cluster-cert=a",
                "--cluster-key=b",
                "--proxy-strategies=nearest",
            ],
            &["--proxy-strategies", "nearest", "destHost"],
        ),
        (&["server", "--tls-min-version=VersionTLS10"], &["--tls-min-version", "VersionTLS12"]),
        (&["server", "--keepalive-time=1 hour"], &["keepalive-time", "1h2m3s"]),
        (
            &["server", "--enable-lease-controller=true"],
            &["--enable-lease-controller", "not available"],
        ),
        (&["server", "--agent-namespace=kube-system"], &["--agent-namespace", "not available"]),
        (
            &[
                "server",
                "--uds-name=/x",
                "--server-port=0",
                "--cluster-cert=/does/not/exist",
                "--cluster-key=/nor/this",
            ],
            &["/does/not/exist"],
        ),
        (
            &["agent", "--agent-identifiers=zone=a"],
            &["--agent-identifiers", "zone", "default-route"],
        ),
        (&["agent", "--agent-cert=a"], &["--agent-cert", "--agent-key", "both"]),
        (&["agent", "--ca-cert=/does/not/exist"], &["/does/not/exist"]),
        (&["agent", "--proxy-server-host=a b"], &["--proxy-server-host", "a b"]),
        (&["agent", "--sync-forever=maybe"], &["sync-forever", "true or false"]),
    ] {
        let arguments: Vec<&str> = ["tunnel"].iter().chain(arguments).copied().collect();
        let ran = run(env!("CARGO_BIN_EXE_cloverleaf"), &arguments, Path::new("/"), &[]);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{arguments:?} lacks {part}: {}", ran.stderr);
        }
    }
}
