//! The conformance suite for HTTP/2 against a server on this crate. `H2SPEC` names the program, which
//! `cargo xtask test` sets.

use std::ffi::OsString;
use std::future::poll_fn;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cloverleaf_http2::{Block, Call, Connection, Error, Limits};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// The suite takes seconds for what it expects not to be answered.
const WITHIN: Duration = Duration::from_secs(240);

const LIMITS: Limits = Limits {
    stream_window_bytes: 65_535,
    connection_window_bytes: 1 << 20,
    frame_bytes_max: 16_384,
    send_buffer_bytes: 1 << 16,
    streams_max: 100,
    header_bytes_max: 1 << 16,
    header_table_bytes: 4096,
    reset_streams_max: 100,
};

/// Reads all and answers with a few bytes.
async fn answer(mut call: Call<Bytes>) -> Result<(), Error> {
    while let Some(bytes) = poll_fn(|cx| call.body.poll_data(cx)).await {
        call.body.release(bytes?.len());
    }
    call.answer.send_head(Block::answer(200).field("content-type", b"text/plain"), false)?;
    call.answer.send_data(Bytes::from_static(b"an answer with a body of some length"))?;
    call.answer.send_end(None)?;
    poll_fn(|cx| call.answer.poll_over(cx)).await;
    Ok(())
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        drop(net::task::spawn_local("connection", async move {
            let mut connection = Connection::new(stream, LIMITS);
            while let Some(Ok(call)) = connection.accept().await {
                drop(net::task::spawn_local("call", async move {
                    // Much of what the suite does is to break calls off.
                    let _ = answer(call).await;
                }));
            }
        }));
    }
}

/// Runs the suite; its report.
async fn suite(tool: OsString, port: u16) -> String {
    let run = move || {
        let mut command = Command::new(tool);
        command.args(["--strict", "--timeout", "3", "--host", "127.0.0.1", "--port"]);
        command.arg(port.to_string()).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().expect("h2spec to start");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    tokio::task::spawn_blocking(run).await.expect("the suite")
}

#[test]
fn h2spec_passes() {
    let variable = |name: &str| std::env::vars_os().find(|(n, _)| n == name).map(|(_, v)| v);
    let Some(tool) = variable("H2SPEC") else {
        assert_ne!(variable("CI"), Some(OsString::from("true")), "H2SPEC names no h2spec");
        eprintln!("skipped: H2SPEC does not name the h2spec program; `cargo xtask test` does");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(net::task::spawn_local("server", serve(listener)));
        tokio::time::timeout(WITHIN, suite(tool, port)).await.expect("the suite in time")
    });
    let sum = report.lines().find(|line| line.contains(" passed, ")).unwrap_or_default();
    assert!(sum.contains(", 0 failed") && !sum.starts_with("0 tests"), "{report}");
}
