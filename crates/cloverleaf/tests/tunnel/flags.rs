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
        (
            &[
                "server",
                "--uds-name=/x",
                "--server-port=0",
                "--cluster-cert=a",
                "--cluster-key=b",
                "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_FAST",
            ],
            &["--cipher-suites", "TLS_FAST"],
        ),
        (&["server", "--keepalive-time=1 hour"], &["keepalive-time", "1h2m3s"]),
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
        (&["server", "--enable-profiling"], &["--enable-profiling", "not available"]),
        (
            &["agent", "--agent-identifiers=zone=a"],
            &["--agent-identifiers", "zone", "default-route"],
        ),
        (&["agent", "--agent-cert=a"], &["--agent-cert", "--agent-key", "both"]),
        (&["agent", "--ca-cert=/does/not/exist"], &["/does/not/exist"]),
        (&["agent", "--proxy-server-host=a b"], &["--proxy-server-host", "a b"]),
        (&["agent", "--sync-forever=maybe"], &["sync-forever", "true or false"]),
    ] {
        is_refused(arguments, parts);
    }
}

/// What concerns a cluster's API server: all of it is checked before anything is asked of that.
#[test]
fn what_is_wrong_about_the_cluster_is_named() {
    let server =
        ["server", "--uds-name=/x", "--server-port=0", "--cluster-cert=a", "--cluster-key=b"];
    let tokens =
        ["--agent-namespace=n", "--agent-service-account=a", "--authentication-audience=us"];
    for (flags, parts) in [
        (&tokens[..1], &["--agent-service-account", "--authentication-audience", "none"][..]),
        (&tokens[1..], &["--agent-namespace"]),
        (&[&tokens[..], &["--cluster-ca-cert=c"]].concat(), &["--cluster-ca-cert", "a token"]),
        (&["--agent-policy=/p"], &["--agent-policy", "--cluster-ca-cert"]),
        (&["--agent-policy=/does/not/exist", "--cluster-ca-cert=c"], &["/does/not/exist"]),
        (&["--kubeconfig-qps=-1"], &["--kubeconfig-qps", "above 0"]),
        (&["--kubeconfig-qps=many"], &["--kubeconfig-qps"]),
        (&["--kubeconfig-burst=-1"], &["--kubeconfig-burst"]),
        (
            &["--enable-lease-controller", "--server-id=One_"],
            &["--server-id", "One_", "lower-case letters"],
        ),
        (
            &["--enable-lease-controller", "--server-id=one", "--lease-label=server"],
            &["--lease-label", "key=value"],
        ),
    ] {
        is_refused(&[&server[..], flags].concat(), parts);
    }
    for (flags, parts) in [
        (&["--server-count-source=mean"][..], &["--server-count-source", "default or max"][..]),
        (
            &["--count-server-leases", "--kubeconfig=/does/not/exist"],
            &["--kubeconfig", "/does/not/exist"],
        ),
    ] {
        is_refused(&[&["agent"], flags].concat(), parts);
    }
}

/// What stands in manifests for the originals is taken, and passed over: what is wrong behind it is what is said.
#[test]
fn what_changes_nothing_is_accepted() {
    let both = [
        "--v=4",
        "--logtostderr=false",
        "--alsologtostderr",
        "--log-file=/var/log/x.log",
        "--log-dir",
        "/var/log",
        "--log-file-max-size=0",
        "--log-backtrace-at=",
        "--stderrthreshold=2",
        "--vmodule=a=1",
        "--one-output",
        "--skip-headers=true",
        "--skip-log-headers",
        "--add-dir-header",
        "--xfr-channel-size=10",
        "--warn-on-channel-limit",
        "--enable-profiling=false",
        "--enable-contention-profiling=false",
        "--kubeconfig-qps=5",
        "--kubeconfig-burst=10",
        "--kubeconfig=",
    ];
    let server = ["--agent-namespace=", "--lease-label=a=b", "--cipher-suites=", "--mode=socks"];
    let agent = [
        "--probe-interval=1s",
        "--server-count-source=default",
        "--lease-label-selector=a=b",
        "--agent-identifiers=zone=a",
    ];
    is_refused(&[&["server"], &both[..], &server].concat(), &["--mode", "socks"]);
    is_refused(&[&["agent"], &both[..], &agent].concat(), &["--agent-identifiers", "zone"]);
}

fn is_refused(arguments: &[&str], parts: &[&str]) {
    let arguments: Vec<&str> = ["tunnel"].iter().chain(arguments).copied().collect();
    let ran = run(env!("CARGO_BIN_EXE_cloverleaf"), &arguments, Path::new("/"), &[]);
    assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
    for part in parts {
        assert!(ran.stderr.contains(part), "{arguments:?} lacks {part}: {}", ran.stderr);
    }
}
