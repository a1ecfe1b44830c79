//! What `proxy.conf` says of connections between hosts: whether they are secured, with which certificate, and whose
//! certificate is believed. Pure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tls::SpiffePattern;

/// Whether connections between hosts are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// None is.
    #[default]
    Off,
    /// Those with hosts that can; the others are plain.
    Offered,
    /// All; hosts that cannot get no connection.
    Required,
}

impl Mode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::Offered, Self::Required].into_iter().find(|mode| mode.as_str() == text)
    }

    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Offered => "offered",
            Self::Required => "required",
        }
    }
}

/// Whose certificate is believed, of those that an authority has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identities {
    /// The hosts of `hosts.conf`: the certificate has the address or name that stands there.
    Hosts,
    /// Workloads with these SPIFFE IDs, wherever they are.
    Ids(Arc<[SpiffePattern]>),
}

impl Identities {
    /// `hosts`, or SPIFFE IDs between commas. `None` where it is none of that.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "hosts" {
            return Some(Self::Hosts);
        }
        let ids: Option<Arc<[_]>> =
            text.split(',').map(|item| SpiffePattern::parse(item.trim())).collect();
        ids.map(Self::Ids)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// `SECURITY`
    pub mode: Mode,
    /// `CERTIFICATE`: the own, then those between it and an authority.
    pub certificate: PathBuf,
    /// `CERTIFICATEKEY`
    pub key: PathBuf,
    /// `AUTHORITIES`
    pub authorities: PathBuf,
    /// `IDENTITIES`
    pub identities: Identities,
}

impl Security {
    /// Off; the files by the names that SPIFFE's helper gives them.
    pub(super) fn defaults(folder: &Path) -> Self {
        Self {
            mode: Mode::Off,
            certificate: folder.join("svid.pem"),
            key: folder.join("svid_key.pem"),
            authorities: folder.join("bundle.pem"),
            identities: Identities::Hosts,
        }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.certificate, &self.key, &self.authorities];
        files.into_iter().filter(|_| self.mode != Mode::Off)
    }
}
