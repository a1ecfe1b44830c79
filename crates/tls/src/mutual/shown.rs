//! Who a certificate says its owner is, and whether that is somebody who is admitted. Pure.
//!
//! Names are compared as they are: no wildcard, since it names no host, and no common name.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::spiffe::{self, SpiffePattern};

/// Names of a certificate that a complaint shows.
const NAMES_SHOWN_MAX: usize = 5;

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Whose certificate has one of these hosts, as [`host_key`] spells them, among its alternative names. One that is
    /// dialled must have the very host that was dialled.
    Hosts(Arc<HashSet<String>>),
    /// Whose certificate has one alternative name that is a URI, and that is a SPIFFE ID which one of these means.
    Ids(Arc<[SpiffePattern]>),
}

/// How a host is spelled to be compared: an address in its shortest form (IPv4 also where it is mapped into IPv6), a
/// name in lower case without a dot at its end.
#[must_use]
pub fn host_key(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}

/// Why a certificate is not that of who is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is for {found}, expected {wanted}")]
pub(crate) struct WrongPeer {
    pub(crate) found: String,
    pub(crate) wanted: String,
}

/// What a leaf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Addresses and DNS names, by [`host_key`].
    pub(crate) hosts: Vec<String>,
    pub(crate) uris: Vec<String>,
    /// It may sign certificates, or lists of revoked ones.
    signs: bool,
    /// Its extended usage leaves this out.
    pub(crate) not_for_servers: bool,
    pub(crate) not_for_clients: bool,
}

impl Shown {
    /// Reads a certificate; `None` where it is not one.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut shown = Self::default();
        let names = certificate.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => shown.hosts.push(host_key(name)),
                GeneralName::IPAddress(bytes) => shown.hosts.extend(address(bytes)),
                GeneralName::URI(uri) => shown.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        let usage = certificate.key_usage().ok()?;
        shown.signs = usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign());
        if let Some(usage) = certificate.extended_key_usage().ok()? {
            shown.not_for_servers = !usage.value.any && !usage.value.server_auth;
            shown.not_for_clients = !usage.value.any && !usage.value.client_auth;
        }
        Some(shown)
    }

    /// The names, as a person reads them.
    pub(crate) fn names(&self) -> String {
        let all: Vec<&str> = self.uris.iter().chain(&self.hosts).map(String::as_str).collect();
        match all.len() {
            0 => "nobody".to_owned(),
            count if count > NAMES_SHOWN_MAX => {
                format!(
                    "{} and {} more",
                    all[..NAMES_SHOWN_MAX].join(", "),
                    count - NAMES_SHOWN_MAX
                )
            }
            _ => all.join(", "),
        }
    }

    fn wrong(&self, wanted: String) -> WrongPeer {
        WrongPeer { found: self.names(), wanted }
    }

    /// The one ID of a workload, as the X.509-SVID specification has it (sections 2, 4.1 and 4.3).
    fn id(&self) -> Option<&str> {
        match &self.uris[..] {
            [id] if spiffe::is_id(id) && !self.signs => Some(id),
            _ => None,
        }
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_canonical().to_string())
}

impl Admitted {
    /// Whether it is somebody who may connect here.
    pub(crate) fn may_connect(&self, shown: &Shown) -> Result<(), WrongPeer> {
        match self {
            Self::Hosts(hosts) if shown.hosts.iter().any(|host| hosts.contains(host)) => Ok(()),
            Self::Hosts(_) => Err(shown.wrong("a host of the cluster".to_owned())),
            Self::Ids(patterns) => one_of(patterns, shown),
        }
    }

    /// Whether it is who was dialled.
    pub(crate) fn is_dialled(&self, shown: &Shown, host: &str) -> Result<(), WrongPeer> {
        match self {
            Self::Hosts(_) if shown.hosts.contains(&host_key(host)) => Ok(()),
            Self::Hosts(_) => Err(shown.wrong(host.to_owned())),
            Self::Ids(patterns) => one_of(patterns, shown),
        }
    }
}

fn one_of(patterns: &[SpiffePattern], shown: &Shown) -> Result<(), WrongPeer> {
    if shown.id().is_some_and(|id| patterns.iter().any(|pattern| pattern.means(id))) {
        return Ok(());
    }
    let wanted: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    Err(shown.wrong(wanted.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hosts: &[&str], uris: &[&str]) -> Shown {
        Shown {
            hosts: hosts.iter().map(|host| host_key(host)).collect(),
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            ..Shown::default()
        }
    }

    #[test]
    fn hosts_are_compared_as_they_are() {
        let cluster = ["10.0.0.1", "fd00::1", "b.test"].map(host_key);
        let admitted = Admitted::Hosts(Arc::new(cluster.into()));
        for (name, host, dialled, connects) in [
            ("10.0.0.1", "10.0.0.1", true, true),
            ("::ffff:10.0.0.1", "10.0.0.1", true, true),
            ("10.0.0.1", "b.test", false, true),
            ("fd00:0::1", "fd00::1", true, true),
            ("B.Test.", "b.test", true, true),
            ("*.test", "b.test", false, false),
            ("10.0.0.2", "10.0.0.1", false, false),
            // One that was dialled need not be in the file any more.
            ("10.0.0.2", "10.0.0.2", true, false),
        ] {
            let shown = shown(&[name], &["spiffe://a/x"]);
            assert_eq!(admitted.is_dialled(&shown, host).is_ok(), dialled, "{name} as {host}");
            assert_eq!(admitted.may_connect(&shown).is_ok(), connects, "{name}");
        }
        let error = admitted.may_connect(&shown(&["x.test"], &[])).unwrap_err();
        let expected = "the certificate is for x.test, expected a host of the cluster";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_workload_has_one_id_and_signs_nothing() {
        let pattern = SpiffePattern::parse("spiffe://a/mesh/*").unwrap();
        let admitted = Admitted::Ids(Arc::new([pattern]));
        let good = shown(&["10.0.0.1"], &["spiffe://a/mesh/1"]);
        assert_eq!(admitted.may_connect(&good), Ok(()));
        assert_eq!(admitted.is_dialled(&good, "10.0.0.9"), Ok(()));
        for uris in [
            &[][..],
            &["spiffe://a/other"],
            &["spiffe://b/mesh/1"],
            &["https://a/mesh/1"],
            &["spiffe://a/mesh/1", "spiffe://a/mesh/2"],
            &["spiffe://a/mesh/1", "https://a/"],
            &["spiffe://a/mesh/../mesh/1"],
        ] {
            let bad = shown(&["10.0.0.1"], uris);
            assert!(admitted.may_connect(&bad).is_err(), "{uris:?}");
            assert!(admitted.is_dialled(&bad, "10.0.0.1").is_err(), "{uris:?}");
        }
        let signs = Shown { signs: true, ..good };
        assert!(admitted.may_connect(&signs).is_err());
        let many: Vec<String> = (0..7).map(|n| format!("h{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = admitted.may_connect(&shown(&many, &[])).unwrap_err().to_string();
        assert!(error.contains("h4 and 2 more, expected spiffe://a/mesh/*"), "{error}");
    }
}
