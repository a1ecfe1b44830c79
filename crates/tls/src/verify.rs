//! Verifying an upstream's certificate: against authorities, or not at all on the user's word.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::leaf::{Leaf, Validity};
use crate::provider;

/// Verifies against authorities; with none of them nothing verifies. Or against the very certificates that
/// are given beside them: a server that shows one of these itself is trusted as long as it fits by name and
/// time. So are self-signed certificates made to be authorities (as `openssl req -x509` makes them), which
/// a strict path builder refuses as a server's own.
pub(crate) fn against(
    store: Arc<RootCertStore>,
    given: Vec<CertificateDer<'static>>,
) -> Arc<dyn ServerCertVerifier> {
    let builder = WebPkiServerVerifier::builder_with_provider(store, provider::provider());
    match builder.build() {
        Ok(authorities) => Arc::new(Trusting { authorities, given }),
        // The only reason is that there are no authorities.
        Err(_) => Arc::new(NoAuthorities(algorithms())),
    }
}

/// Verifies nothing about who answers, but still that the peer holds the key of the certificate it shows.
pub(crate) fn nothing() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(algorithms()))
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider::provider().signature_verification_algorithms
}

#[derive(Debug)]
struct Trusting {
    authorities: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.given.iter().any(|given| given == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            let leaf = Leaf::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
            return match leaf.validity(now) {
                Validity::NotYet => Err(CertificateError::NotValidYet.into()),
                Validity::Over => Err(CertificateError::Expired.into()),
                Validity::Now => Ok(ServerCertVerified::assertion()),
            };
        }
        let result = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        result.map_err(|error| match error {
            // That a self-signed certificate says it is an authority is not what is wrong with it.
            Error::InvalidCertificate(CertificateError::Other(_))
                if Leaf::parse(end_entity).is_some_and(|leaf| leaf.self_issued) =>
            {
                CertificateError::UnknownIssuer.into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct NoAuthorities(WebPkiSupportedAlgorithms);

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

/// The handshake's signatures are verified the usual way; only the question whose certificate it is differs.
macro_rules! verifier {
    ($name:ident, $verdict:expr) => {
        impl ServerCertVerifier for $name {
            fn verify_server_cert(
                &self,
                _end_entity: &CertificateDer<'_>,
                _intermediates: &[CertificateDer<'_>],
                _server_name: &ServerName<'_>,
                _ocsp_response: &[u8],
                _now: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                $verdict
            }

            fn verify_tls12_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                verify_tls12_signature(message, cert, dss, &self.0)
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                verify_tls13_signature(message, cert, dss, &self.0)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                self.0.supported_schemes()
            }
        }
    };
}

verifier!(NoAuthorities, Err(CertificateError::UnknownIssuer.into()));
verifier!(Anybody, Ok(ServerCertVerified::assertion()));
