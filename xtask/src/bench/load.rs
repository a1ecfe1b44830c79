//! The load: wrk for HTTP/1.1, h2load for HTTP/2, ab for new TLS connections (wrk would resume its
//! sessions, and so skip what that case measures), and what they say read back. It must not know which
//! proxy answers.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    case::Case,
    process::{LOAD_CORE, pinned},
};
use crate::sh;

const CONNECTIONS: usize = 64;
const H2_CONNECTIONS: usize = 16;
const H2_STREAMS_EACH: usize = 8;

/// What one run of a load generator saw.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) requests_a_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Ask a proxy on `port` for `seconds`. Files that the generator needs are written into `folder`.
pub(crate) fn run(case: Case, port: u16, seconds: u64, folder: &Path) -> Result<Seen> {
    let scheme = if case.tls() { "https" } else { "http" };
    let url = format!("{scheme}://127.0.0.1:{port}{}", case.path());
    let times = folder.join("times");
    let _ = fs::remove_file(&times);
    let command = match case {
        Case::H2 => h2load(&url, seconds, &times),
        Case::TlsNew => ab(&url, seconds, &times),
        _ => wrk(case, &url, seconds, folder)?,
    };
    let text = sh::capture(&mut pinned(&command, LOAD_CORE))?;
    let times = || fs::read_to_string(&times).context("read the times of the requests");
    let seen = match case {
        Case::H2 => parse_h2load(&text, &times()?),
        Case::TlsNew => parse_ab(&text, &times()?),
        _ => parse_wrk(&text),
    };
    seen.with_context(|| format!("the load failed: {}", last_line(&text)))
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().next_back().unwrap_or("it said nothing")
}

/// HTTP/1.1 on connections that are kept; hosts by turns when the case has rules.
pub(crate) fn wrk(case: Case, url: &str, seconds: u64, folder: &Path) -> Result<Command> {
    let mut command = Command::new("wrk");
    command.args([
        "-t",
        "1",
        "-c",
        &CONNECTIONS.to_string(),
        "-d",
        &format!("{seconds}s"),
        "--latency",
    ]);
    if case.rules() > 0 {
        command.arg("-s").arg(script(case, folder)?);
    } else {
        command.args(["-H", "Host: bench.example"]);
    }
    command.arg(url);
    Ok(command)
}

fn h2load(url: &str, seconds: u64, times: &Path) -> Command {
    let mut command = Command::new("h2load");
    command.args([
        "-t",
        "1",
        "-c",
        &H2_CONNECTIONS.to_string(),
        "-m",
        &H2_STREAMS_EACH.to_string(),
    ]);
    command
        .arg(format!("--duration={seconds}"))
        .arg(format!("--log-file={}", times.display()))
        .arg(url);
    command
}

/// A full handshake for every request. The number of requests is only a bound: time ends the run.
fn ab(url: &str, seconds: u64, times: &Path) -> Command {
    let mut command = Command::new("ab");
    command.args([
        "-q",
        "-t",
        &seconds.to_string(),
        "-n",
        "1000000",
        "-c",
        &CONNECTIONS.to_string(),
    ]);
    command.args(["-f", "TLS1.3", "-H", "Host: bench.example", "-e"]).arg(times).arg(url);
    command
}

/// A script for wrk that spreads the requests evenly over all hosts.
fn script(case: Case, folder: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    let _ = write!(
        text,
        "request = function()
  return \"GET {} HTTP/1.1\\r\\nHost: h\" .. math.random(0, {}) .. \".bench.example\\r\\n\\r\\n\"
end
",
        case.path(),
        case.rules() - 1
    );
    let file = folder.join("hosts.lua");
    fs::write(&file, text).context("write the script for wrk")?;
    Ok(file)
}

/// wrk's summary; failed requests make the run worthless.
pub(crate) fn parse_wrk(text: &str) -> Result<Seen> {
    if let Some(line) =
        text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
    {
        bail!("{}", line.trim());
    }
    let after = |label: &str| {
        text.lines().find_map(|line| Some(line.trim().strip_prefix(label)?.trim().to_owned()))
    };
    let requests =
        text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let seen = Seen {
        requests: requests.context("no number of requests")?,
        requests_a_second: after("Requests/sec:")
            .context("no rate")?
            .parse()
            .context("the rate")?,
        p50_us: after("50%").as_deref().and_then(micros).context("no median")?,
        p99_us: after("99%").as_deref().and_then(micros).context("no 99th percentile")?,
    };
    if seen.requests == 0 {
        bail!("no request was answered");
    }
    Ok(seen)
}

/// h2load's summary, and its log with a line for each request: start, status, microseconds.
fn parse_h2load(text: &str, log: &str) -> Result<Seen> {
    let line =
        text.lines().find(|line| line.starts_with("requests:")).context("no number of requests")?;
    let count = |word: &str| {
        line.trim_start_matches("requests:")
            .split(',')
            .find_map(|part| part.trim().strip_suffix(word))
    };
    let failed = count(" failed").context("no number of failures")?;
    if failed != "0" {
        bail!("{failed} requests failed");
    }
    let rate = text.split(", ").find_map(|part| part.strip_suffix(" req/s")).context("no rate")?;
    let mut times: Vec<f64> = log
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t').skip(1);
            (fields.next()? == "200").then(|| fields.next()?.parse().ok())?
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    Ok(Seen {
        requests: count(" succeeded")
            .context("no number of successes")?
            .parse()
            .context("successes")?,
        requests_a_second: rate.parse().context("the rate")?,
        p50_us: at(0.5).context("an empty log")?,
        p99_us: at(0.99).context("an empty log")?,
    })
}

/// ab's summary, and its table of percentiles in milliseconds.
fn parse_ab(text: &str, percentiles: &str) -> Result<Seen> {
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let failed = after("Failed requests:").context("no number of failures")?;
    let refused = after("Non-2xx responses:").unwrap_or(0.0);
    if failed + refused > 0.0 {
        bail!("{failed} requests failed, {refused} were not answered with 2xx");
    }
    let percentile = |share: &str| {
        let value =
            percentiles.lines().find_map(|line| line.strip_prefix(share)?.strip_prefix(','));
        value.and_then(|value| value.parse::<f64>().ok()).map(|millis| millis * 1000.0)
    };
    let requests = after("Complete requests:").context("no number of requests")?;
    if requests < 1.0 {
        bail!("no request was answered");
    }
    Ok(Seen {
        requests: requests as u64,
        requests_a_second: after("Requests per second:").context("no rate")?,
        p50_us: percentile("50").context("no median")?,
        p99_us: percentile("99").context("no 99th percentile")?,
    })
}

/// A time as wrk writes it: `12.30us`, `1.20ms`, `1.01s`.
fn micros(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("m", 6e7), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1:1/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.10ms  100.00us   9.00ms   99.00%
    Req/Sec    58.00k     1.00k   60.00k    70.00%
  Latency Distribution
     50%  950.00us
     75%    1.10ms
     90%    1.20ms
     99%    1.50ms
  58123 requests in 1.00s, 65.00MB read
Requests/sec:  58123.45
Transfer/sec:     65.00MB
";

    #[test]
    fn the_summary_of_wrk_is_read() {
        let seen = parse_wrk(WRK).expect("a good run");
        let expected =
            Seen { requests: 58123, requests_a_second: 58123.45, p50_us: 950.0, p99_us: 1500.0 };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_run_with_failures_does_not_count() {
        for line in [
            "  Non-2xx or 3xx responses: 3\n",
            "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
        ] {
            assert!(parse_wrk(&format!("{WRK}{line}")).is_err(), "{line}");
        }
        let text =
            "requests: 3 total, 3 started, 3 done, 2 succeeded, 1 failed, 0 errored, 0 timeout\n";
        assert!(parse_h2load(text, "").is_err());
    }

    #[test]
    fn the_summary_of_h2load_is_read() {
        let text = "finished in 1.00s, 4.00 req/s, 4.90KB/s\n\
                    requests: 4 total, 5 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout\n";
        let log = "1\t200\t40\n1\t200\t10\n1\t200\t20\n1\t200\t30\n";
        let seen = parse_h2load(text, log).expect("a good run");
        assert_eq!(seen, Seen { requests: 4, requests_a_second: 4.0, p50_us: 30.0, p99_us: 40.0 });
    }

    #[test]
    fn the_summary_of_ab_is_read() {
        let text = "Complete requests:      300\nFailed requests:        0\n\
                    Requests per second:    301.50 [#/sec] (mean)\n";
        let percentiles = "Percentage served,Time in ms\n50,1.500\n99,2.250\n";
        let seen = parse_ab(text, percentiles).expect("a good run");
        let expected =
            Seen { requests: 300, requests_a_second: 301.5, p50_us: 1500.0, p99_us: 2250.0 };
        assert_eq!(seen, expected);
        assert!(parse_ab(&format!("{text}Non-2xx responses:      3\n"), percentiles).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(micros("12.50us"), Some(12.5));
        assert_eq!(micros("1.50ms"), Some(1500.0));
        assert_eq!(micros("2.00s"), Some(2e6));
        assert_eq!(micros("12"), None);
    }
}
