//! A certificate chain with its private key, read and checked against each other.
//!
//! Must not know what it is for, and puts no byte of a key into a complaint.

use std::sync::Arc;

use model::PemSource;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::CertificateDer;

use crate::leaf::Leaf;
use crate::pem::{self, Complaint};
use crate::provider;

/// A chain with its key, and what its leaf says.
pub(crate) fn load(
    chain_source: &PemSource,
    key_source: &PemSource,
) -> Result<(Arc<CertifiedKey>, Leaf), Vec<Complaint>> {
    let (chain, key) = match (pem::certificates(chain_source), pem::private_key(key_source)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
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
    Ok((Arc::new(certified), leaf))
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
