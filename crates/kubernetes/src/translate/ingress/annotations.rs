//! Annotations of an Ingress: how its requests are passed on.
//!
//! Each has a name of ours (`cloverleaf/...`); two have NanoProxy's as well. A value that is none changes
//! nothing and is reported. Start at [`settings`].

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Algorithm, HostName};

use super::super::Draft;
use crate::objects::from_api::shown;
use crate::objects::{Ingress, Kind, Text};

/// Longest and shortest time that an answer may be given to begin.
const RESPONSE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const RESPONSE_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The part of a name behind `cloverleaf/`, and whether `nanoproxy/` has it as well.
const KNOWN: [(&str, bool); 10] = [
    ("backend-protocol", true),
    ("strip-path", true),
    ("https-redirect", false),
    ("balance", false),
    ("max-request-body", false),
    ("response-timeout", false),
    ("backend-tls-verify", false),
    ("backend-ca", false),
    ("backend-server-name", false),
    ("health-check-path", false),
];

/// What they come to. The default is that of an Ingress without annotations.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    /// The part matched goes from the path.
    pub(super) strip_path: bool,
    /// Clients of http are sent to https.
    pub(super) https_redirect: bool,
    /// Bytes.
    pub(super) request_body_max: Option<u64>,
    pub(super) response_timeout: Option<Duration>,
    /// What concerns the upstreams.
    pub(super) backend: BackendSettings,
}

/// What two Ingresses must agree on to share the upstream of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct BackendSettings {
    /// TLS or not; `None`: as the Service's port says.
    pub(super) tls: Option<bool>,
    /// Whether certificates of backends are verified.
    pub(super) verify: Option<bool>,
    /// A Secret of the same namespace with the authorities of backends.
    pub(super) authorities: Option<Text>,
    /// The name that certificates of backends must have.
    pub(super) server_name: Option<HostName>,
    /// `None`: as the Service's session affinity says.
    pub(super) balance: Option<Balance>,
    /// Path and query of a health check.
    pub(super) health_check_path: Option<Text>,
}

/// [`Algorithm`] as a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Balance {
    RoundRobin,
    LeastRequests,
    ClientAddress,
}

impl Balance {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::RoundRobin => Algorithm::RoundRobin,
            Self::LeastRequests => Algorithm::LeastRequests,
            Self::ClientAddress => Algorithm::ClientAddress,
        }
    }
}

/// Those of an Ingress; what is wrong with them is reported.
pub(super) fn settings(ingress: &Ingress, draft: &mut Draft) -> Settings {
    let mut settings = Settings::default();
    if ingress.annotations.is_empty() {
        return settings;
    }
    let mut problem = |reason, message: String| {
        draft.problem(Kind::Ingress, &ingress.meta, reason, message);
    };
    for (name, seed_has_it) in KNOWN {
        let found = chosen(&ingress.annotations, name, seed_has_it, &mut problem);
        let Some((full_name, value)) = found else { continue };
        if let Err(expected) = set(&mut settings, name, value) {
            problem(
                "InvalidAnnotation",
                format!(
                    "metadata.annotations[{full_name:?}] is {}, expected {expected}; it is ignored",
                    shown(value)
                ),
            );
        }
    }
    for name in ingress.annotations.keys().filter(|name| !is_known(name)) {
        let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        problem(
            "UnknownAnnotation",
            format!(
                "metadata.annotations[{}] is not known here and ignored; \
                 expected \"cloverleaf/\" and one of {}",
                shown(name),
                known.join(", ")
            ),
        );
    }
    settings
}

fn is_known(name: &str) -> bool {
    match name.split_once('/') {
        Some(("nanoproxy", last)) => KNOWN.contains(&(last, true)),
        Some(("cloverleaf", last)) => KNOWN.iter().any(|(known, _)| *known == last),
        _ => false,
    }
}

/// Our name goes before the seed's; that both say different things is reported.
fn chosen<'i>(
    annotations: &'i BTreeMap<Text, Text>,
    name: &str,
    seed_has_it: bool,
    problem: &mut impl FnMut(&'static str, String),
) -> Option<(String, &'i str)> {
    let get = |prefix: &str| {
        let full = format!("{prefix}/{name}");
        annotations.get(&*full).map(|value| (full, &**value))
    };
    let ours = get("cloverleaf");
    let theirs = get("nanoproxy").filter(|_| seed_has_it);
    if let (Some((our_name, our_value)), Some((their_name, their_value))) = (&ours, &theirs)
        && our_value != their_value
    {
        problem(
            "ConflictingAnnotations",
            format!(
                "metadata.annotations[{their_name:?}] is {} but {our_name:?} is {}; the latter is used",
                shown(their_value),
                shown(our_value)
            ),
        );
    }
    ours.or(theirs)
}

/// Sets one; the error is what was expected.
fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), &'static str> {
    let backend = &mut settings.backend;
    match name {
        "backend-protocol" => {
            backend.tls =
                Some(choice(value, &[("http", false), ("https", true)], "http or https")?);
        }
        "strip-path" => {
            settings.strip_path =
                choice(value, &[("true", true), ("false", false)], "true or false")?;
        }
        "https-redirect" => {
            settings.https_redirect =
                choice(value, &[("true", true), ("false", false)], "true or false")?;
        }
        "balance" => {
            let words = [
                ("round-robin", Balance::RoundRobin),
                ("least-requests", Balance::LeastRequests),
                ("client-address", Balance::ClientAddress),
            ];
            let expected = "round-robin, least-requests or client-address";
            backend.balance = Some(choice(value, &words, expected)?);
        }
        "max-request-body" => {
            settings.request_body_max =
                Some(bytes(value).ok_or("bytes such as 512k, 10m or 1g (0 is unbounded)")?);
        }
        "response-timeout" => {
            settings.response_timeout =
                Some(duration(value).ok_or("a time from 1ms to 24h such as 500ms, 30s or 2m")?);
        }
        "backend-tls-verify" => {
            backend.verify = Some(choice(value, &[("on", true), ("off", false)], "on or off")?);
        }
        "backend-ca" => {
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
            if value.is_empty() || value.len() > 253 || !value.bytes().all(plain) {
                return Err("the name of a Secret of this namespace");
            }
            backend.authorities = Some(value.into());
        }
        "backend-server-name" => {
            backend.server_name = Some(HostName::parse(value).map_err(|_| "a host name")?);
        }
        "health-check-path" => {
            let visible = value.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            if !value.starts_with('/') || !visible {
                return Err("a path that begins with a slash, escaped as in a URL");
            }
            backend.health_check_path = Some(value.into());
        }
        _ => {}
    }
    Ok(())
}

fn choice<T: Copy>(
    value: &str,
    words: &[(&str, T)],
    expected: &'static str,
) -> Result<T, &'static str> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or(expected)
}

/// Digits and what follows them.
fn number(value: &str) -> Option<(u64, &str)> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    Some((value[..end].parse().ok()?, &value[end..]))
}

/// As nginx writes sizes (`10m`), or Kubernetes does (`10Mi`): powers of 1024. 0 is unbounded.
fn bytes(value: &str) -> Option<u64> {
    let (number, unit) = number(value)?;
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" | "Ki" => 1 << 10,
        "m" | "M" | "Mi" => 1 << 20,
        "g" | "G" | "Gi" => 1 << 30,
        _ => return None,
    };
    if number == 0 { Some(u64::MAX) } else { number.checked_mul(factor) }
}

/// A whole number of `ms`, `s` (also without unit), `m` or `h`.
fn duration(value: &str) -> Option<Duration> {
    let (number, unit) = number(value)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (RESPONSE_TIMEOUT_MIN..=RESPONSE_TIMEOUT_MAX).contains(&duration).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes("34m"), Some(34 << 20));
        assert_eq!(bytes("1Gi"), Some(1 << 30));
        assert_eq!(bytes("17"), Some(17));
        assert_eq!(bytes("0"), Some(u64::MAX));
        for bad in ["", "m", "-1", "1.5m", "1t", "10 m", "99999999999999999999", "99999999999g"] {
            assert_eq!(bytes(bad), None, "{bad:?}");
        }
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "0", "0ms", "25h", "1d", "-1s", "1.5s", "9999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    /// `docs/ingress.md` names what the code has, and nothing else.
    #[test]
    fn the_document_has_a_row_for_each() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ingress.md");
        let page = std::fs::read_to_string(page).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `cloverleaf/"));
        let documented: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(documented, KNOWN.map(|(name, _)| name));
    }

    #[test]
    fn each_has_its_bad_values() {
        let bad = [
            ("backend-protocol", "HTTPS"),
            ("backend-protocol", "grpc"),
            ("strip-path", "yes"),
            ("https-redirect", "301"),
            ("balance", "random"),
            ("max-request-body", "much"),
            ("response-timeout", "soon"),
            ("backend-tls-verify", "false"),
            ("backend-ca", "../other"),
            ("backend-ca", "other/ca"),
            ("backend-server-name", "a b"),
            ("health-check-path", "healthz"),
            ("health-check-path", "/a b"),
            ("health-check-path", "/a\r\nX: y"),
        ];
        for (name, value) in bad {
            let mut settings = Settings::default();
            assert!(set(&mut settings, name, value).is_err(), "{name}: {value}");
            assert_eq!(settings, Settings::default(), "{name}: {value}");
        }
    }
}
