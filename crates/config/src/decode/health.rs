//! `upstreams[].healthCheck`: how endpoints are asked whether they can serve.

use std::time::Duration;

use model::{HealthCheck, Probe};

use crate::context::Context;
use crate::keys;
use crate::scalar;
use crate::value::Map;

/// More often would be a load and not a check.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const RISE_DEFAULT: u32 = 2;
const FALL_DEFAULT: u32 = 3;
const STATUSES_DEFAULT: (u16, u16) = (200, 399);
/// A path that is longer is no health check.
const PATH_BYTES_MAX: usize = 2_048;

/// That of an upstream, if it has one. `https`: the upstream's scheme.
pub(super) fn decode(
    cx: &mut Context<'_>,
    upstream: Map<'_, '_>,
    https: bool,
) -> Option<HealthCheck> {
    let value = upstream.get("healthCheck")?;
    let map = value.map(cx, &keys::HEALTH_CHECK)?;
    let probe = probe(cx, map, https);
    let (interval, timeout) = times(cx, map);
    let number = |cx: &mut Context<'_>, name, default| {
        map.integer(cx, name).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let port = map.integer(cx, "port").and_then(|n| u16::try_from(n).ok());
    Some(HealthCheck {
        probe,
        port: port.filter(|port| *port > 0),
        interval,
        timeout,
        rise: number(cx, "rise", RISE_DEFAULT),
        fall: number(cx, "fall", FALL_DEFAULT),
    })
}

/// By HTTP if there is a path, else by TCP.
fn probe(cx: &mut Context<'_>, map: Map<'_, '_>, https: bool) -> Probe {
    let path = map.text(cx, "path");
    let host = map.host(cx, "host");
    let scheme = map.choice(cx, "scheme");
    let statuses = map.parsed(cx, "statuses", scalar::statuses);
    let Some(path) = path else {
        for name in ["host", "scheme", "statuses"] {
            if let Some(value) = map.get(name) {
                let problem = "without a path the check is a TCP connection, which has none";
                let alone = value.error(cx, problem).expected("a path beside it");
                cx.report.push(alone);
            }
        }
        return Probe::Tcp;
    };
    let fine = |b: u8| matches!(b, 0x21..=0x7e) && b != b'#';
    let fine = path.starts_with('/') && path.bytes().all(fine) && path.len() <= PATH_BYTES_MAX;
    if let Some(value) = map.get("path").filter(|_| !fine) {
        let expected = format!(
            "a path that begins with a slash, of at most {PATH_BYTES_MAX} visible ASCII characters"
        );
        let wrong = value.error(cx, "wrong value").value(path).expected(expected);
        cx.report.push(wrong);
    }
    Probe::Http {
        path: path.into(),
        host,
        tls: scheme.map_or(https, |scheme| scheme == "https"),
        statuses: statuses.unwrap_or(STATUSES_DEFAULT),
    }
}

/// Interval and timeout; one that is too long for the other is an error only where it was given.
fn times(cx: &mut Context<'_>, map: Map<'_, '_>) -> (Duration, Duration) {
    let mut interval = map.duration(cx, "interval").unwrap_or(INTERVAL_DEFAULT);
    if interval < INTERVAL_MIN {
        if let Some(value) = map.get("interval") {
            let often = value.error(cx, "too often").value(scalar::duration_text(interval));
            cx.report
                .push(often.expected(format!("at least {}", scalar::duration_text(INTERVAL_MIN))));
        }
        interval = INTERVAL_MIN;
    }
    let Some(timeout) = map.duration(cx, "timeout") else {
        return (interval, TIMEOUT_DEFAULT.min(interval));
    };
    if timeout > interval
        && let Some(value) = map.get("timeout")
    {
        let long = value.error(cx, "longer than the interval");
        let long = long.value(scalar::duration_text(timeout));
        cx.report.push(long.expected(format!("at most {}", scalar::duration_text(interval))));
    }
    (interval, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults in the reference are those that hold.
    #[test]
    fn the_table_tells_the_true_defaults() {
        let default = |name: &str| keys::HEALTH_CHECK.key(name).unwrap().default;
        assert_eq!(default("interval"), format!("`{}`", scalar::duration_text(INTERVAL_DEFAULT)));
        let timeout = scalar::duration_text(TIMEOUT_DEFAULT);
        assert!(default("timeout").starts_with(&format!("`{timeout}`, or ")));
        assert_eq!(default("rise"), RISE_DEFAULT.to_string());
        assert_eq!(default("fall"), FALL_DEFAULT.to_string());
        let (low, high) = STATUSES_DEFAULT;
        assert_eq!(default("statuses"), format!("`{low}-{high}`"));
        let least = format!("at least `{}`", scalar::duration_text(INTERVAL_MIN));
        assert!(keys::HEALTH_CHECK.key("interval").unwrap().doc.contains(&least));
    }
}
