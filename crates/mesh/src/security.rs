//! Connections between hosts made secure: what is needed for it, loaded from the files that `proxy.conf` names, and
//! what is counted of it.
//!
//! Which host can do it is remembered in [`crate::hosts`], and found out by [`crate::probe`] and by asking. Start at
//! [`Secured`].

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use model::{Diagnostic, Diagnostics, PemSource, Place, Target};
use tls::{Admitted, Credentials, Mutual, MutualError, MutualErrorKind, host_key};

use crate::Millis;
use crate::files::security::{Identities, Mode, Security};
use crate::source::Files;

/// What ALPN calls the protocol of [`crate::peer`].
pub const ALPN: &[u8] = b"cloverleaf-mesh/1";

/// How a handshake ended: well, with signatures or by a ticket; or why not.
pub const HANDSHAKE_RESULTS: [&str; 14] = [
    "full",
    "resumed",
    "timeout",
    "not_tls",
    "no_certificate",
    "untrusted",
    "expired",
    "not_yet_valid",
    "wrong_peer",
    "bad_certificate",
    "refused",
    "handshake",
    "closed",
    "io",
];

/// How connections between hosts are secured. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Secured {
    mode: Mode,
    mutual: Option<Mutual>,
    /// Of all that it was made of.
    fingerprint: u64,
}

impl Secured {
    /// Loads what the settings name, for a cluster of these hosts. Where nothing of it has changed since `before`, that
    /// stays, with its sessions. Reads files, so not for a worker thread.
    ///
    /// # Errors
    /// All that is wrong, at the given place: then `before` had better stay.
    pub fn load(
        settings: &Security,
        hosts: &[Target],
        before: Option<&Self>,
        place: &Place,
    ) -> Result<Self, Diagnostics> {
        if settings.mode == Mode::Off {
            return Ok(Self::default());
        }
        let hosts: HashSet<String> = hosts.iter().map(|target| host_key(&target.host())).collect();
        // Before the files are read: what changes meanwhile is found to have changed the next time.
        let fingerprint = fingerprint(settings, &hosts);
        let known = before.filter(|before| before.fingerprint == fingerprint);
        if let Some(mutual) = known.and_then(|before| before.mutual.clone()) {
            return Ok(Self { mode: settings.mode, mutual: Some(mutual), fingerprint });
        }
        let credentials = Credentials {
            certificate: PemSource::File(settings.certificate.clone()),
            key: PemSource::File(settings.key.clone()),
            authorities: PemSource::File(settings.authorities.clone()),
        };
        let admitted = match &settings.identities {
            Identities::Hosts => Admitted::Hosts(Arc::new(hosts)),
            Identities::Ids(patterns) => Admitted::Ids(patterns.clone()),
        };
        let mutual = Mutual::load(&credentials, admitted, ALPN, place)?;
        Ok(Self { mode: settings.mode, mutual: Some(mutual), fingerprint })
    }

    /// Of files that were read for the first time. What is odd or wrong about it is said as that of `proxy.conf`; where
    /// it is wrong nothing is secured, and nothing had better begin.
    #[must_use]
    pub fn first(proxy_conf: &Path, files: &Files, found: &mut Diagnostics) -> Self {
        let place = Place::whole(proxy_conf.display().to_string());
        match Self::load(&files.settings.security, &files.hosts, None, &place) {
            Ok(secured) => {
                found.0.extend(secured.warnings());
                secured
            }
            Err(problems) => {
                found.0.extend(problems.0);
                Self::default()
            }
        }
    }

    /// As [`Self::load`], with what is odd or wrong among the diagnostics; `before` stays where it is wrong.
    #[must_use]
    pub fn renewed(
        before: &Self,
        settings: &Security,
        hosts: &[Target],
        place: &Place,
        found: &mut Diagnostics,
    ) -> Self {
        match Self::load(settings, hosts, Some(before), place) {
            Ok(secured) => {
                found.0.extend(secured.warnings());
                secured
            }
            Err(problems) => {
                found.0.extend(problems.0);
                let stays = format!(
                    "connections between hosts stay {}, with the certificate of before",
                    before.mode.as_str()
                );
                found.push(Diagnostic::warning(place.clone(), "SECURITY", stays));
                before.clone()
            }
        }
    }

    fn warnings(&self) -> Vec<Diagnostic> {
        self.mutual.as_ref().map(|mutual| mutual.warnings().0.clone()).unwrap_or_default()
    }

    /// Whether they are secured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What secures them; `None` where nothing does.
    #[must_use]
    pub fn mutual(&self) -> Option<&Mutual> {
        self.mutual.as_ref()
    }

    /// Whether it is made of the same as another.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.mode == other.mode && self.fingerprint == other.fingerprint
    }
}

/// A number that changes with the names and contents of the files, and with whom they are for.
fn fingerprint(settings: &Security, hosts: &HashSet<String>) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = HASHER.get_or_init(RandomState::default).build_hasher();
    for file in settings.files() {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write_u8(0);
        let content = std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() <= BYTES_MAX);
        let content = content.then(|| std::fs::read(file).ok()).flatten().unwrap_or_default();
        hasher.write_usize(content.len());
        hasher.write(&content);
    }
    match &settings.identities {
        Identities::Hosts => {
            let mut hosts: Vec<&String> = hosts.iter().collect();
            hosts.sort_unstable();
            hosts.iter().for_each(|host| hasher.write(host.as_bytes()));
        }
        Identities::Ids(patterns) => {
            patterns.iter().for_each(|pattern| hasher.write(pattern.to_string().as_bytes()));
        }
    }
    hasher.finish()
}

/// Larger files are refused when they are loaded.
const BYTES_MAX: u64 = 1024 * 1024;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Another host.
    In,
    /// This one.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// As a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    handshakes: [[AtomicU64; HANDSHAKE_RESULTS.len()]; 2],
    /// Plain ones, then secured ones.
    tunnels: [[AtomicU64; 2]; 2],
    /// When something was last complained about in the log.
    complained: AtomicU64,
}

/// Between two complaints of a kind that anybody could cause.
const COMPLAINT_EVERY_MILLIS: Millis = 1_000;

impl Counts {
    /// Counts a handshake that is complete.
    pub(crate) fn complete(&self, direction: Direction, resumed: bool) {
        self.handshake(direction, if resumed { "resumed" } else { "full" });
    }

    /// Counts one that failed.
    pub(crate) fn failed(&self, direction: Direction, error: &MutualError) {
        self.handshake(direction, error.kind().as_str());
    }

    /// Counts by a word of [`HANDSHAKE_RESULTS`].
    pub(crate) fn handshake(&self, direction: Direction, result: &str) {
        if let Some(at) = HANDSHAKE_RESULTS.iter().position(|word| *word == result) {
            self.handshakes[direction as usize][at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a tunnel to a pod of another host, or of another host to one here.
    pub(crate) fn tunnel(&self, direction: Direction, secured: bool) {
        self.tunnels[direction as usize][usize::from(secured)].fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes by result.
    pub fn handshakes(&self, direction: Direction) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = &self.handshakes[direction as usize];
        HANDSHAKE_RESULTS.iter().zip(counted).map(|(word, n)| (*word, n.load(Ordering::Relaxed)))
    }

    /// Tunnels, plain (`plain`) and secured (`tls`).
    pub fn tunnels(&self, direction: Direction) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = &self.tunnels[direction as usize];
        ["plain", "tls"].into_iter().zip(counted).map(|(word, n)| (word, n.load(Ordering::Relaxed)))
    }

    /// Whether a complaint may go to the log: one a second, over all workers.
    pub(crate) fn may_complain(&self, now: Millis) -> bool {
        let last = self.complained.load(Ordering::Relaxed);
        let due = last == 0 || now >= last.saturating_add(COMPLAINT_EVERY_MILLIS);
        due && self
            .complained
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// The word for a kind of failure, as a number that fits into an atomic one; 0 is for none.
pub(crate) fn number(kind: MutualErrorKind) -> u8 {
    let at = HANDSHAKE_RESULTS.iter().position(|word| *word == kind.as_str());
    at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or_default()
}

/// The word for such a number.
pub(crate) fn word(number: u8) -> Option<&'static str> {
    HANDSHAKE_RESULTS.get(usize::from(number).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_counted_under_its_word() {
        let counts = Counts::default();
        for kind in MutualErrorKind::ALL {
            assert!(HANDSHAKE_RESULTS.contains(&kind.as_str()), "{kind:?}");
            assert_eq!(word(number(kind)), Some(kind.as_str()));
            counts.handshake(Direction::In, kind.as_str());
        }
        assert_eq!(word(0), None);
        assert_eq!(counts.handshakes(Direction::In).map(|(_, n)| n).sum::<u64>(), 11);
        assert_eq!(counts.handshakes(Direction::Out).map(|(_, n)| n).sum::<u64>(), 0);
    }

    #[test]
    fn one_complaint_a_second() {
        let counts = Counts::default();
        let said: Vec<Millis> = (1..3_000).filter(|now| counts.may_complain(*now)).collect();
        assert_eq!(said, [1, 1_001, 2_001]);
    }
}
