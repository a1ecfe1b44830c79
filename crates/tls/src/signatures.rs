//! What every verifier does alike: the signatures of a handshake, by which the other side shows that it holds the key
//! of its certificate. Whose certificate it is, is for the verifier. Must not know any verifier.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use crate::provider;

/// The algorithms of the one provider.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider::provider().signature_verification_algorithms
}

/// Verifies a signature of TLS 1.2.
///
/// # Errors
/// It is not that of the certificate's key.
pub(crate) fn tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls12_signature(message, certificate, signature, &algorithms())
}

/// Verifies a signature of TLS 1.3.
///
/// # Errors
/// It is not that of the certificate's key.
pub(crate) fn tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &algorithms())
}

/// What the other side may sign with.
pub(crate) fn schemes() -> Vec<SignatureScheme> {
    algorithms().supported_schemes()
}

/// The methods for it, which verifiers of servers and of clients name alike.
macro_rules! verified_as_usual {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            crate::signatures::tls12(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            crate::signatures::tls13(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            crate::signatures::schemes()
        }
    };
}

pub(crate) use verified_as_usual;
