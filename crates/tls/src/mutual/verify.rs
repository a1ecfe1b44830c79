//! Verifying an equal's certificate, on either side: an authority that is trusted, then who it is for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::shown::{Admitted, Shown, WrongPeer};
use crate::provider;

/// Verifies who was dialled.
#[derive(Debug)]
pub(super) struct Dialled {
    roots: Arc<RootCertStore>,
    admitted: Admitted,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Dialled {
    pub(super) fn new(roots: Arc<RootCertStore>, admitted: Admitted) -> Arc<Self> {
        let algorithms = provider::provider().signature_verification_algorithms;
        Arc::new(Self { roots, admitted, algorithms })
    }
}

/// Verifies who connects.
#[derive(Debug)]
pub(super) struct Connecting {
    authorities: Arc<dyn ClientCertVerifier>,
    admitted: Admitted,
}

impl Connecting {
    /// # Errors
    /// Where there are no authorities.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        admitted: Admitted,
    ) -> Result<Arc<Self>, VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider::provider());
        // An equal knows by itself which certificate to show: the names of the authorities need not be told.
        let authorities = builder.clear_root_hint_subjects().build()?;
        Ok(Arc::new(Self { authorities, admitted }))
    }
}

fn shown(certificate: &CertificateDer<'_>) -> Result<Shown, Error> {
    Shown::parse(certificate).ok_or_else(|| CertificateError::BadEncoding.into())
}

fn refused(wrong: WrongPeer) -> Error {
    CertificateError::Other(OtherError(Arc::new(wrong))).into()
}

impl ServerCertVerifier for Dialled {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let shown = shown(end_entity)?;
        self.admitted.is_dialled(&shown, &server_name.to_str()).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Connecting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.authorities.verify_client_cert(end_entity, intermediates, now)?;
        self.admitted.may_connect(&shown(end_entity)?).map_err(refused)?;
        Ok(verified)
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
