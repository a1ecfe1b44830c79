//! A reload of many rules under load: the time from the write of the file to the first answer that only the
//! new file gives, and how the slowest requests fare meanwhile.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    case::{Case, RELOAD_RULES, rule_host},
    idle, load,
    peers::cloverleaf_file,
    process::{LOAD_CORE, pinned},
    results::Reload,
};

/// Reloads in one round, each this long after the one before.
const RELOADS: usize = 5;
const PAUSE: Duration = Duration::from_millis(700);
const LIVE_LIMIT: Duration = Duration::from_secs(10);

/// Measure Cloverleaf, which serves `file` on `port`.
pub(crate) fn run(
    port: u16,
    upstream: u16,
    file: &Path,
    seconds: u64,
    folder: &Path,
) -> Result<Reload> {
    let before = load::run(Case::Reload, port, seconds, folder)?;
    // Long enough for all reloads, so that load is there from the first to the last.
    let during = (PAUSE.as_millis() as u64 * (RELOADS as u64 + 1)).div_ceil(1000).max(seconds);
    let url = format!("http://127.0.0.1:{port}{}", Case::Reload.path());
    let command = load::wrk(Case::Reload, &url, during, folder)?;
    let wrk = pinned(&command, LOAD_CORE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start wrk")?;
    let applied: Result<Vec<f64>> =
        (0..RELOADS).map(|round| apply(port, upstream, file, round)).collect();
    let output = wrk.wait_with_output().context("wait for wrk")?;
    let during = load::parse_wrk(&String::from_utf8_lossy(&output.stdout))?;
    let mut applied = applied?;
    applied.sort_by(f64::total_cmp);
    Ok(Reload {
        applied_ms: applied[applied.len() / 2],
        slowest_ms: applied[applied.len() - 1],
        p99_before_us: before.p99_us,
        p99_during_us: during.p99_us,
    })
}

/// Write the file with one host more; milliseconds until that host is served.
fn apply(port: u16, upstream: u16, file: &Path, round: usize) -> Result<f64> {
    thread::sleep(PAUSE);
    let mut hosts: Vec<String> = (0..RELOAD_RULES).map(rule_host).collect();
    let new = format!("new{round}.bench.example");
    hosts.push(new.clone());
    let beside = file.with_extension("next");
    fs::write(&beside, cloverleaf_file(port, upstream, None, &hosts))
        .context("write the next file")?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect")?;
    client.set_read_timeout(Some(LIVE_LIMIT))?;
    client.set_nodelay(true)?;
    let request = format!("GET /1k HTTP/1.1\r\nHost: {new}\r\n\r\n");
    let start = Instant::now();
    fs::rename(&beside, file).context("put the next file in place")?;
    loop {
        client.write_all(request.as_bytes()).context("ask for the new host")?;
        if idle::read_reply(&mut client)? == 200 {
            return Ok(start.elapsed().as_secs_f64() * 1000.0);
        }
        if start.elapsed() > LIVE_LIMIT {
            bail!("the new file was not live after {LIVE_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}
