//! What a leaf certificate says about itself: its names and its time of validity. Pure.

use std::time::SystemTime;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Ahead of expiry, how long a person is warned.
const EXPIRY_WARNING_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The facts of a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// DNS names in lower case without trailing dot, wildcards as `*.name`. From the subject alternative
    /// names; from the common name only if there are none at all (RFC 6125 section 6.4.4).
    pub(crate) dns_names: Vec<String>,
    /// Its issuer bears its own name.
    pub(crate) self_issued: bool,
    not_before: i64,
    not_after: i64,
}

impl Leaf {
    /// Reads a certificate; `None` where it is not one.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            dns_names: dns_names(&certificate),
            self_issued: certificate.issuer().as_raw() == certificate.subject().as_raw(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// When it ends to be valid, in seconds since 1970.
    pub(crate) fn expires(&self) -> u64 {
        u64::try_from(self.not_after).unwrap_or_default()
    }

    /// Whether it is valid at a time.
    pub(crate) fn validity(&self, now: SystemTime) -> Validity {
        match seconds(now) {
            now if now > self.not_after => Validity::Over,
            now if now < self.not_before => Validity::NotYet,
            _ => Validity::Now,
        }
    }

    /// What is to be said about its time of validity, if anything.
    pub(crate) fn time_warning(&self, now: SystemTime) -> Option<String> {
        let left = self.not_after.saturating_sub(seconds(now));
        match self.validity(now) {
            Validity::Over => Some(format!("expired {} ago", days(-left))),
            Validity::NotYet => {
                let wait = days(self.not_before - seconds(now));
                Some(format!("is not valid for another {wait}"))
            }
            Validity::Now if left < EXPIRY_WARNING_SECONDS => {
                Some(format!("expires in {}", days(left)))
            }
            Validity::Now => None,
        }
    }
}

/// Where a time lies to a certificate's validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Before it.
    NotYet,
    /// Within it.
    Now,
    /// After it.
    Over,
}

/// Since 1970, as certificates count.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds as days, or hours below two days.
fn days(seconds: i64) -> String {
    const HOUR: i64 = 60 * 60;
    const DAY: i64 = 24 * HOUR;
    const TWO_DAYS: i64 = 2 * DAY;
    match seconds {
        ..HOUR => "less than an hour".to_owned(),
        HOUR..TWO_DAYS => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let fold = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<String> = match alternative {
        Some(names) => names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(fold(name)),
                _ => None,
            })
            .collect(),
        None => certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .map(fold)
            .collect(),
    };
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_told_in_words() {
        const DAY: u64 = 24 * 60 * 60;
        let leaf = Leaf {
            dns_names: vec![],
            self_issued: false,
            not_before: 100 * DAY.cast_signed(),
            not_after: 200 * DAY.cast_signed(),
        };
        let cases = [
            (99 * DAY, Some("is not valid for another 24 h")),
            (100 * DAY, None),
            (150 * DAY, None),
            (193 * DAY, None),
            (194 * DAY, Some("expires in 6 days")),
            (200 * DAY - 60, Some("expires in less than an hour")),
            (200 * DAY + 1, Some("expired less than an hour ago")),
            (230 * DAY, Some("expired 30 days ago")),
        ];
        for (now, expected) in cases {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            assert_eq!(leaf.time_warning(now).as_deref(), expected, "{now:?}");
        }
    }
}
