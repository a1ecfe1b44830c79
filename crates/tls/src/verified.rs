//! Chains of certificates that were found good a moment ago: who connects often is looked at in full only now and then.
//!
//! Whose key it is must be proven in every handshake; that is not for here. Must not know authorities: who asks has one
//! of these for each set of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::leaf::Leaf;

/// How long a chain counts as good without being looked at again.
const REMEMBERED_SECONDS: u64 = 10;
/// Chains that are remembered; beyond it all are forgotten.
const CHAINS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashMap<Box<[u8]>, Chain>>);

/// A chain below the certificate that is shown first, and from when to when it counts as good.
#[derive(Debug)]
struct Chain {
    intermediates: Vec<CertificateDer<'static>>,
    from: UnixTime,
    /// Within the validity of each of its certificates.
    to: UnixTime,
}

impl Verified {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Chain>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether exactly this chain was found good a moment ago, and has not expired since.
    pub(crate) fn has(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        self.lock().get(end_entity.as_ref()).is_some_and(|chain| {
            (chain.from..=chain.to).contains(&now) && chain.intermediates == intermediates
        })
    }

    /// It has been found good at this time.
    pub(crate) fn remember(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) {
        let mut to = now.as_secs() + REMEMBERED_SECONDS;
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            let Some(certificate) = Leaf::parse(certificate) else { return };
            to = to.min(certificate.expires());
        }
        let intermediates = intermediates.iter().map(|one| one.clone().into_owned()).collect();
        let to = UnixTime::since_unix_epoch(Duration::from_secs(to));
        let mut chains = self.lock();
        if chains.len() >= CHAINS_MAX {
            chains.clear();
        }
        chains.insert(end_entity.as_ref().into(), Chain { intermediates, from: now, to });
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rustls::pki_types::pem::PemObject;
    use testkit::Authority;
    use testkit::certs::Wanted;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// Valid in 2025 alone.
    fn certificate(name: &str) -> CertificateDer<'static> {
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let wanted = Wanted::client(name).valid(time(BEGIN_OF_2025), time(END_OF_2025));
        let issued = Authority::new().issue(&wanted);
        CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
    }

    const BEGIN_OF_2025: u64 = 1_735_689_600;
    const IN_2025: u64 = 1_750_000_000;
    const END_OF_2025: u64 = 1_767_225_600;

    #[test]
    fn the_same_chain_counts_for_a_while() {
        let verified = Verified::default();
        let (one, other, below) = (certificate("a"), certificate("b"), certificate("c"));
        let chain = std::slice::from_ref(&below);
        assert!(!verified.has(&one, chain, at(IN_2025)));
        verified.remember(&one, chain, at(IN_2025));
        assert!(verified.has(&one, chain, at(IN_2025)));
        assert!(verified.has(&one, chain, at(IN_2025 + REMEMBERED_SECONDS)));
        assert!(!verified.has(&one, chain, at(IN_2025 + REMEMBERED_SECONDS + 1)));
        assert!(!verified.has(&one, chain, at(IN_2025 - 1)));
        assert!(!verified.has(&one, &[], at(IN_2025)));
        assert!(!verified.has(&one, std::slice::from_ref(&other), at(IN_2025)));
        assert!(!verified.has(&other, chain, at(IN_2025)));
    }

    #[test]
    fn nothing_counts_beyond_its_validity() {
        let (one, below) = (certificate("a"), certificate("b"));
        for chain in [&[][..], std::slice::from_ref(&below)] {
            let verified = Verified::default();
            verified.remember(&one, chain, at(END_OF_2025 - 3));
            assert!(verified.has(&one, chain, at(END_OF_2025)));
            assert!(!verified.has(&one, chain, at(END_OF_2025 + 1)));
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_remembered_and_not_too_many_are() {
        let verified = Verified::default();
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        verified.remember(&garbage, &[], at(IN_2025));
        assert!(!verified.has(&garbage, &[], at(IN_2025)));
        let one = certificate("a");
        for number in 0..CHAINS_MAX {
            let chain = Chain { intermediates: Vec::new(), from: at(0), to: at(u64::MAX) };
            verified.lock().insert(number.to_be_bytes().into(), chain);
        }
        verified.remember(&one, &[], at(IN_2025));
        assert!(verified.has(&one, &[], at(IN_2025)) && verified.lock().len() == 1);
    }
}
