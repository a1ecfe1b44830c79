//! `tunnel forward` before servers that are none, or others than it was told.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use testkit::{Port, wait_until};

use crate::support::{Forward, Tunnel, WITHIN, head, local};

/// A server on a Unix socket that does as the test says, and a local port through it.
fn before(
    mode: &str,
    to: &str,
    serve: impl Fn(UnixStream) + Send + Sync + 'static,
) -> (Tunnel, tempfile::TempDir, Forward, Port) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), serve) = (stream, serve.clone()) else { return };
            let _ = stream.set_read_timeout(Some(WITHIN));
            std::thread::spawn(move || serve(stream));
        }
    });
    let (tunnel, port) = (Tunnel::server("grpc", &[]), Port::reserve());
    let arguments = vec![
        "forward".to_owned(),
        format!("--server=unix:{}", path.display()),
        format!("--mode={mode}"),
        format!("--listen=127.0.0.1:{port}"),
        format!("--to={to}"),
    ];
    let forward = tunnel.forward_with(arguments, Port::reserve());
    (tunnel, dir, forward, port)
}

#[test]
fn what_is_no_server_is_a_reset_and_not_ready() {
    for mode in ["grpc", "http-connect"] {
        for answer in ["", "220 mail.test ESMTP\r\n", "\0\0\x12\x04\0\0\0\0\0garbage of a kind"] {
            let (_tunnel, _dir, forward, port) = before(mode, "a.test:1", move |mut stream| {
                let _ = stream.write_all(answer.as_bytes());
            });
            let mut stream = local(&port);
            let ended = stream.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(ended, Err(ErrorKind::ConnectionReset), "{mode} {answer:?}");
            assert_eq!(forward.ready().0, 503, "{mode} {answer:?}");
        }
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let (_tunnel, _dir, forward, port) = before("http-connect", "a.test:1", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nA: ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let ended = local(&port).read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert!(forward.process.wait_log("too long"));
}

/// An original connects wherever its strategies lead: it hears no byte.
#[test]
fn an_original_that_knows_no_clusters_gets_no_payload() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = heard.clone();
    let (_tunnel, _dir, forward, port) =
        before("http-connect", "one/a.test:1", move |mut stream| {
            if !head(&mut stream).starts_with("CONNECT ") {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            hears.lock().unwrap().push(rest);
        });
    let mut stream = local(&port);
    let _ = stream.write_all(b"secret");
    assert!(stream.read(&mut [0]).is_err());
    assert!(wait_until(WITHIN, || !heard.lock().unwrap().is_empty()));
    assert!(heard.lock().unwrap().iter().all(Vec::is_empty));
    assert!(forward.process.wait_log("knows no clusters"));
}
