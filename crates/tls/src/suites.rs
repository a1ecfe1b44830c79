//! Cipher suites of TLS 1.2 by the names that Go's programs have for them in their flags.
//!
//! Those of TLS 1.3 are all good and not for choosing, as in Go. Must not know flags.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ProtocolVersion};

use crate::provider;

/// Those there are here, under each of their names.
const KNOWN: [(&str, CipherSuite); 8] = {
    use CipherSuite as C;
    [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", C::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", C::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            C::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        (
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            C::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
            C::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", C::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ]
};

/// Those of TLS 1.3, which are there in any case.
const ALWAYS: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Those that Go has besides: without forward secrecy, or in modes that have been broken again and again.
const WEAK: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// What is offered to clients.
#[derive(Clone)]
pub struct CipherSuites {
    provider: Arc<CryptoProvider>,
    /// Names that were given and are not offered here, since they are weak.
    pub left_out: Vec<String>,
}

impl Default for CipherSuites {
    /// All that there are.
    fn default() -> Self {
        Self { provider: provider::provider(), left_out: Vec::new() }
    }
}

impl fmt::Debug for CipherSuites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.provider.cipher_suites.iter().map(rustls::SupportedCipherSuite::suite);
        f.debug_list().entries(names).finish()
    }
}

/// Why names make no choice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuitesError {
    /// A name that nobody knows.
    #[error(
        "unknown cipher suite {0:?}, expected Go's names, as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    )]
    Unknown(String),
    /// All that were given are weak, or of TLS 1.3.
    #[error("no cipher suite of TLS 1.2 is left; there are {}", all())]
    None,
}

/// Each once: the last ones are second names.
fn all() -> String {
    KNOWN[..6].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl CipherSuites {
    /// Those of the names, and all of TLS 1.3. In whose order is ours to say.
    ///
    /// # Errors
    /// [`SuitesError`].
    pub fn named<'n>(names: impl Iterator<Item = &'n str>) -> Result<Self, SuitesError> {
        let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
        for name in names {
            if let Some((_, suite)) = KNOWN.iter().find(|(known, _)| *known == name) {
                chosen.push(*suite);
            } else if WEAK.contains(&name) {
                left_out.push(name.to_owned());
            } else if !ALWAYS.contains(&name) {
                return Err(SuitesError::Unknown(name.to_owned()));
            }
        }
        if chosen.is_empty() {
            return Err(SuitesError::None);
        }
        let mut provider = CryptoProvider::clone(&provider::provider());
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3 || chosen.contains(&suite.suite())
        });
        Ok(Self { provider: Arc::new(provider), left_out })
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_among_those_of_tls_1_2_and_leave_those_of_1_3() {
        let all = format!("{:?}", CipherSuites::default());
        assert_eq!(all.matches("TLS").count(), 9);
        let names = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", WEAK[2]];
        let chosen = CipherSuites::named(names.into_iter()).unwrap();
        let shown = format!("{chosen:?}");
        assert_eq!(shown.matches("TLS13").count(), 3, "{shown}");
        assert_eq!(shown.matches("TLS_ECDHE").count(), 1, "{shown}");
        assert_eq!(chosen.left_out, [WEAK[2]]);
    }

    #[test]
    fn names_that_make_no_choice_are_refused() {
        let named = |names: &[&'static str]| CipherSuites::named(names.iter().copied());
        let unknown = named(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "AES128"]).unwrap_err();
        assert_eq!(unknown, SuitesError::Unknown("AES128".to_owned()));
        for names in [&[][..], &[WEAK[0]], &ALWAYS] {
            assert_eq!(named(names).unwrap_err(), SuitesError::None, "{names:?}");
        }
    }
}
