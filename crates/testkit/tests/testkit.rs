//! The tools themselves: the client against upstreams that misbehave, and a process that is not ours.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloverleaf_testkit as testkit;
use testkit::client::{Failure, Framing, Tls, fetch, get};
use testkit::upstream::Gate;
use testkit::{Authority, Client, Gateway, Step, Upstream, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn answer(bytes: &str) -> Result<testkit::Response, Failure> {
    let upstream = Upstream::start([Step::ReadRequest, Step::send(bytes), Step::Close]);
    Client::connect(upstream.address()).request(GET)
}

#[test]
fn answers_are_read_by_their_framing() {
    let length = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:  2 \r\n\r\nhello");
    let length = length.unwrap();
    assert_eq!(
        (length.status, length.reason.as_str(), length.framing),
        (200, "OK", Framing::Length)
    );
    assert_eq!(length.text(), "hello");
    assert_eq!(length.headers_named("x-a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((length.header("x-a"), length.header("content-length")), (None, Some("5")));

    let chunked = answer(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nSum: 1\r\n\r\n",
    )
    .unwrap();
    assert_eq!((chunked.text().as_str(), &*chunked.chunks), ("hello!", &[5, 1][..]));
    assert_eq!(chunked.trailers, [("Sum".to_owned(), "1".to_owned())]);
    assert_eq!(chunked.interim.iter().map(|i| i.status).collect::<Vec<_>>(), [100, 103]);

    let close = answer("HTTP/1.0 200 \r\n\r\nall of it").unwrap();
    assert_eq!((close.text().as_str(), close.framing), ("all of it", Framing::Close));
    assert_eq!(answer("HTTP/1.1 204 No Content\r\n\r\n").unwrap().framing, Framing::None);
}

#[test]
fn answers_that_a_strict_client_refuses_are_refused() {
    let malformed = [
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        "garbage\r\n",
    ];
    for bytes in malformed {
        let failure = answer(bytes).unwrap_err();
        assert!(matches!(failure, Failure::Malformed(_)), "{bytes:?}: {failure}");
    }
    let cut = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nX: y",
    ];
    for bytes in cut {
        let failure = answer(bytes).unwrap_err();
        assert!(matches!(failure, Failure::Cut(_)), "{bytes:?}: {failure}");
    }
    assert!(matches!(answer("").unwrap_err(), Failure::Closed));
}

#[test]
fn requests_are_recorded_with_their_bodies() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = Client::connect(upstream.address());
    let requests = [
        GET,
        "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
        "POST /b HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    ];
    for request in requests {
        assert_eq!(client.request(request).unwrap().text(), "ok");
    }
    assert_eq!(upstream.requests(), requests);
    assert_eq!(upstream.received(0), requests.concat().into_bytes());
    assert_eq!((upstream.connections(), upstream.open_connections()), (1, 1));
    drop(client);
    assert!(wait_until(Duration::from_secs(5), || upstream.open_connections() == 0));
    let _ = get(upstream.address(), "a.test", "/");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn connections_end_as_told() {
    let within = Duration::from_secs(5);
    let run = |steps: Vec<Step>| {
        let upstream = Upstream::start(steps);
        let mut client = Client::connect(upstream.address());
        client.try_send(GET).ok();
        (client.read_to_close(), upstream)
    };
    let (reset, _) = run(vec![Step::ReadRequest, Step::Reset]);
    assert!(matches!(reset.unwrap_err(), Failure::Reset));
    let (closed, _) = run(vec![Step::Close]);
    assert_eq!(closed.unwrap(), b"");
    let (dripped, _) = run(vec![Step::Drip(b"abc".to_vec(), Duration::from_millis(1))]);
    assert_eq!(dripped.unwrap(), b"abc");
    let (flooded, _) = run(vec![Step::Flood(200_000)]);
    assert_eq!(flooded.unwrap().len(), 200_000);

    let hanging = Upstream::start([Step::Hang]);
    let mut client = Client::connect(hanging.address());
    assert!(client.stays_silent_for(Duration::from_millis(50)));
    let begun = Instant::now();
    drop(hanging);
    assert!(begun.elapsed() < within && client.closes_within(within));

    let gate = Gate::new();
    let waiting = Upstream::start([Step::Wait(gate.clone()), Step::send("go"), Step::Echo]);
    let mut client = Client::connect(waiting.address());
    assert!(client.stays_silent_for(Duration::from_millis(20)));
    gate.open();
    assert_eq!(client.read_exactly(2).unwrap(), b"go");
    client.send("echoed");
    client.finish();
    assert_eq!(client.read_to_close().unwrap(), b"echoed");

    let answers_once = [
        Step::ReadRequest,
        Step::send("HTTP/1.1 204 No Content\r\n\r\n"),
        Step::AwaitByte,
        Step::Reset,
    ];
    let upstream = Upstream::start(answers_once);
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.request(GET).unwrap().status, 204);
    assert!(matches!(client.request(GET), Err(Failure::Reset | Failure::Io(_))));
}

#[test]
fn tls_ends_orderly_or_cut() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    for (last, orderly) in [(Step::Close, true), (Step::Cut, false)] {
        let steps = vec![Step::ReadRequest, Step::send("HTTP/1.1 200 OK\r\n\r\nx"), last];
        let upstream = Upstream::scripted_tls(&issued, &["http/1.1"], move |_| steps.clone());
        let tls = Tls::trusting(authority.pem(), "a.test");
        let mut client = Client::connect_tls(upstream.address(), tls);
        assert_eq!(client.alpn().as_deref(), Some("http/1.1"));
        let answer = client.request(GET);
        assert_eq!(answer.is_ok(), orderly, "{answer:?}");
        let stranger = Authority::new();
        let tls = Tls::trusting(stranger.pem(), "a.test");
        assert!(Client::try_connect_tls(upstream.address(), tls).is_err());
        let anybody = Tls { authority_pem: None, ..tls };
        assert!(Client::try_connect_tls(upstream.address(), anybody).is_ok());
    }
}

/// One at a time: a file that another thread's new process still holds open for writing cannot be executed.
static STARTING: Mutex<()> = Mutex::new(());

/// A program that takes any arguments, says what it was given, and ends by itself or by a signal.
fn stand_in(dir: &std::path::Path, script: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_process_is_started_heard_signalled_and_ended() {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let within = Duration::from_secs(10);
    let dir = tempfile::tempdir().unwrap();
    let program = stand_in(
        dir.path(),
        "trap 'echo hup >&2' HUP\ntrap 'echo term; exit 7' TERM\necho \"$@\" \"$PORT $X\" >&2\n\
         while :; do sleep 0.01; done",
    );
    let mut running = Gateway::new(&program, "a: 1\n").arg("--more").env("X", "y").start_unready();
    let port = running.address().port();
    running.expect_stderr(&format!("--more {port} y"), within);
    running.expect_stderr(&format!("--admin-address {}", running.admin_address()), within);
    running.hang_up();
    running.expect_stderr("hup", within);
    running.terminate();
    assert_eq!(running.wait_exit(within), Some(7));
    assert_eq!(running.stdout(), "term\n");
}

#[test]
fn configuration_files_change_in_every_way() {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let program = stand_in(dir.path(), "exec sleep 60");
    let text =
        |running: &testkit::Cloverleaf| std::fs::read_to_string(running.config_file()).unwrap();
    let running = Gateway::new(&program, "1").start_unready();
    assert_eq!(text(&running), "1");
    running.rewrite_in_place("2");
    assert_eq!(text(&running), "2");
    running.rewrite_by_rename("3");
    assert_eq!(text(&running), "3");
    running.remove_config();
    assert!(!running.config_file().exists());

    let mut mounted = Gateway::new(&program, "1").config_map().start_unready();
    assert_eq!(text(&mounted), "1");
    for version in ["2", "3"] {
        mounted.rewrite_by_swap(version);
        assert_eq!(text(&mounted), version);
    }
}

#[test]
fn one_request_for_impatient_tests() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(fetch(upstream.address(), GET).status, 200);
}
