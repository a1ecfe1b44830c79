//! What a text may stand for: numbers, truths, durations, sizes, statuses, addresses, networks.
//!
//! Pure functions from text to value; they know nothing of keys, places or YAML's structure. Numbers and
//! truths are read as YAML 1.2's core schema and `NanoProxy`'s library (Go's yaml.v3) both read them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// The longest duration that any key takes: 30 days.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// An integer: decimal, `0x`, `0o` or `0b`, `_` between digits, or a decimal fraction that is whole (`80.0`).
/// `010` is none: it is eight to some and ten to others.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    let digits = match digits.split_once('.') {
        Some((whole, zeros)) if radix == 10 && zeros.bytes().all(|b| b == b'0') => whole,
        _ => digits,
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let value = i64::from_str_radix(&digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// Yes or no. An unquoted text may also be one of the words of YAML 1.1, as in `NanoProxy`.
pub(crate) fn boolean(text: &str, plain: bool) -> Option<bool> {
    match (text, plain) {
        ("true" | "True" | "TRUE", true) | ("y" | "Y" | "yes" | "on", _) => Some(true),
        ("false" | "False" | "FALSE", true) | ("n" | "N" | "no" | "off", _) => Some(false),
        _ => None,
    }
}

/// A duration: `500ms`, `5s`, `2m`, `1h`, several of them (`1m30s`), or a plain number of seconds; decimals
/// are fine. `None` where it is not that or longer than [`DURATION_MAX`].
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" if end == rest.len() && seconds == 0.0 => 1.0,
            _ => return None,
        };
        rest = &rest[end..];
        seconds += number * unit;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (duration <= DURATION_MAX).then_some(duration)
}

/// A duration as [`duration`] reads it, in the largest unit in which it is whole.
pub(crate) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = String::new();
    let _ = match (seconds, duration.subsec_nanos()) {
        (0, 0) => write!(text, "0s"),
        (s, 0) if s % 3600 == 0 => write!(text, "{}h", s / 3600),
        (s, 0) if s % 60 == 0 => write!(text, "{}m", s / 60),
        (s, 0) => write!(text, "{s}s"),
        (s, n) if n % 1_000_000 == 0 => write!(text, "{}ms", s * 1000 + u64::from(n / 1_000_000)),
        _ => write!(text, "{}s", duration.as_secs_f64()),
    };
    text
}

/// Units of a size, the largest first.
const SIZE_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes above zero, as far as a signed number goes: `4096`, `512KiB`, `10MiB`, `1GiB` or `1TiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let with_unit = |(unit, bytes): &(&str, u64)| Some((text.strip_suffix(unit)?, *bytes));
    let (number, unit) = SIZE_UNITS.iter().find_map(with_unit).unwrap_or((text, 1));
    let number = integer(number).and_then(|n| u64::try_from(n).ok())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
}

/// A size as [`size`] reads it, in the largest unit in which it is whole.
pub(crate) fn size_text(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A status of a final answer, or a range of them with both ends: `200`, `200-399`.
pub(crate) fn statuses(text: &str) -> Option<(u16, u16)> {
    const FINAL: std::ops::RangeInclusive<u16> = 200..=599;
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|status| digits && FINAL.contains(status))
    };
    let (low, high) = (status(low)?, status(high)?);
    (low <= high).then_some((low, high))
}

/// `address:port`; the address an IP literal, IPv6 in brackets.
pub(crate) fn socket_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// As [`socket_address`], but without an address (`:8080`, `8080`) it is every address of both families.
pub(crate) fn listen_address(text: &str) -> Option<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) {
        return Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.parse().ok()?));
    }
    socket_address(text)
}

/// A network as `10.0.0.0/8`, or one address. Bits behind the prefix are dropped.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}

/// Host and port of `host:port`; the host may be an IPv6 literal in brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return None;
    }
    let port: u16 = port.parse().ok().filter(|p| *p > 0)?;
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, value) in [
            ("80", 80),
            ("+80", 80),
            ("-1", -1),
            ("0", 0),
            ("0x1F90", 8080),
            ("0o17", 15),
            ("0b11", 3),
            ("8_080", 8080),
            ("80.0", 80),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "080",
            "8O",
            "80.5",
            "1e3",
            "0x",
            "_1",
            "--1",
            "0xg",
            "99999999999999999999",
            ".0",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn truths() {
        assert_eq!(boolean("true", true), Some(true));
        assert_eq!(boolean("true", false), None);
        assert_eq!(boolean("yes", true), Some(true));
        assert_eq!(boolean("off", false), Some(false));
        assert_eq!(boolean("1", true), None);
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("5", 5_000),
            ("0.25", 250),
            ("1.5s", 1_500),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "5x", "-5s", "5 s", "1m30", ".5", "1.2.3s", "31d", "800h", "1e3", "nan", "∞"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["500ms", "5s", "2m", "1h", "1500ms", "0s", "90s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("1KiB", 1024),
            ("10MiB", 10 << 20),
            ("3GiB", 3 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(size(&size_text(bytes)), Some(bytes), "{text}");
        }
        for text in ["", "0", "0MiB", "-1", "1.5MiB", "10MB", "10 MiB", "MiB", "1mib", "9999999TiB"]
        {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!((size_text(4096), size_text(1000)), ("4KiB".into(), "1000".into()));
        assert_eq!(size_text(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn ranges_of_statuses() {
        for (text, range) in [("200", (200, 200)), ("200-399", (200, 399)), ("599-599", (599, 599))]
        {
            assert_eq!(statuses(text), Some(range), "{text}");
        }
        for text in [
            "",
            "-",
            "200-",
            "-200",
            "399-200",
            "199",
            "100-200",
            "600",
            "2xx",
            "0200",
            "200-300-400",
        ] {
            assert_eq!(statuses(text), None, "{text}");
        }
    }

    #[test]
    fn addresses() {
        let any: SocketAddr = "[::]:8080".parse().unwrap();
        for text in ["8080", ":8080", "[::]:8080"] {
            assert_eq!(listen_address(text), Some(any), "{text}");
        }
        for text in ["", ":", "localhost:80", "1.2.3.4", "::1:80x", "70000", "1.2.3.4:70000", "+80"]
        {
            assert_eq!(listen_address(text), None, "{text}");
        }
        assert_eq!(network("10.1.2.3/8"), "10.0.0.0/8".parse().ok());
        assert_eq!(network("::1"), "::1/128".parse().ok());
        assert_eq!(network("10.0.0.0/33"), None);
        assert_eq!(host_and_port("a.b:80"), Some(("a.b", 80)));
        assert_eq!(host_and_port("[::1]:80"), Some(("[::1]", 80)));
        for text in ["a", ":80", "::1:80", "a:0", "a:b", "a:70000"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}
