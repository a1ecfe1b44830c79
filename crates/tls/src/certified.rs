//! A certificate chain with its private key, read and checked against each other: loaded once for each content, and
//! shared while anybody serves it.
//!
//! The texts are read every time, so that a file that has changed is noticed; what is parsed and made ready to sign
//! with is what is new. Must not know what it is for, and puts no byte of a key into a complaint.

use std::fmt;
use std::sync::Arc;

use model::PemSource;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::CertificateDer;

use crate::in_use::{self, InUse};
use crate::leaf::Leaf;
use crate::pem::{self, Complaint, Text};
use crate::provider;

/// A chain with its key, and what its leaf says.
pub(crate) struct Loaded {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) leaf: Leaf,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret.
        f.debug_struct("Loaded").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// Reads and checks a chain with its key.
///
/// # Errors
/// All that is wrong with them.
pub(crate) fn load(chain: &PemSource, key: &PemSource) -> Result<Arc<Loaded>, Vec<Complaint>> {
    static IN_USE: InUse<Loaded> = InUse::new();
    let chain = Text::read(chain, "certificates");
    let key = Text::read(key, "the private key");
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let content = in_use::digest([chain.bytes(), key.bytes()]);
    IN_USE.get_or_make(content, || parse(&chain, &key))
}

fn parse(chain_text: &Text<'_>, key_text: &Text<'_>) -> Result<Loaded, Vec<Complaint>> {
    let (chain, key) = match (chain_text.certificates(), key_text.private_key()) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let (chain_source, key_source) = (chain_text.source(), key_text.source());
    let provider = provider::provider();
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        vec![Complaint {
            problem: format!("unusable private key in {}", pem::describe(key_source)),
            found: String::new(),
            expected: "an RSA key of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
        }]
    })?;
    let Some(leaf) = Leaf::parse(&chain[0]) else {
        return Err(vec![Complaint {
            problem: format!(
                "the first certificate in {} does not parse",
                pem::describe(chain_source)
            ),
            found: String::new(),
            expected: "an X.509 certificate",
        }]);
    };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(vec![mismatch(chain_source, key_source, &certified)]),
    }
    Ok(Loaded { key: Arc::new(certified), leaf })
}

/// Says why a key does not fit: another certificate of the chain has it, or none.
fn mismatch(
    chain_source: &PemSource,
    key_source: &PemSource,
    certified: &CertifiedKey,
) -> Complaint {
    let fits = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], certified.key.clone()).keys_match().is_ok()
    };
    let chain = pem::describe(chain_source);
    match certified.cert.iter().position(fits) {
        Some(index) => Complaint {
            problem: format!("the chain in {chain} does not begin with the key's certificate"),
            found: format!("the key's certificate as number {} of the chain", index + 1),
            expected: "the leaf first, then its issuer",
        },
        None => Complaint {
            problem: format!(
                "the key in {} does not belong to the certificate in {chain}",
                pem::describe(key_source)
            ),
            found: "different public keys".to_owned(),
            expected: "the private key of the first certificate",
        },
    }
}

#[cfg(test)]
mod tests {
    use testkit::{Authority, Issued};

    use super::*;

    fn sources(issued: &Issued, by_file: bool) -> [PemSource; 2] {
        let inline = |text: &str| PemSource::Inline(text.as_bytes().into());
        match by_file {
            true => {
                [&issued.chain_file, &issued.key_file].map(|file| PemSource::File(file.clone()))
            }
            false => [inline(&issued.chain_pem), inline(&issued.key_pem)],
        }
    }

    fn loaded(issued: &Issued, by_file: bool) -> Arc<Loaded> {
        let [chain, key] = sources(issued, by_file);
        load(&chain, &key).unwrap()
    }

    #[test]
    fn equal_content_is_loaded_once_and_only_while_it_is_used() {
        let authority = Authority::new();
        let (one, two) = (authority.server(&["a.test"]), authority.server(&["a.test"]));
        let first = loaded(&one, true);
        assert!(Arc::ptr_eq(&first, &loaded(&one, true)));
        assert!(Arc::ptr_eq(&first, &loaded(&one, false)), "from elsewhere");
        assert!(!Arc::ptr_eq(&first, &loaded(&two, true)));
        // The file has another certificate now; the first is still served to somebody.
        std::fs::write(&one.chain_file, &two.chain_pem).unwrap();
        std::fs::write(&one.key_file, &two.key_pem).unwrap();
        let second = loaded(&one, true);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &loaded(&two, false)));
        // Nobody has it any more: neither have we.
        let (gone, key) = (Arc::downgrade(&first), Arc::downgrade(&first.key));
        drop(first);
        assert!(gone.upgrade().is_none() && key.upgrade().is_none());
    }

    #[test]
    fn what_fits_alone_does_not_fit_together() {
        let authority = Authority::new();
        let (one, two) = (authority.server(&["a.test"]), authority.server(&["b.test"]));
        let served = [&one, &two].map(|issued| loaded(issued, false));
        let ([chain, _], [_, key]) = (sources(&one, false), sources(&two, false));
        let complaints = load(&chain, &key).unwrap_err();
        assert!(complaints[0].problem.contains("does not belong"), "{complaints:?}");
        let shown = format!("{served:?}");
        assert!(shown.contains("a.test") && !shown.contains("PRIVATE"), "{shown}");
    }
}
