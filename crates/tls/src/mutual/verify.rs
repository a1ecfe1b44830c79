//! Verifying an equal's certificate, on either side: an authority that is trusted, then who it is for.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};

use super::shown::{Admitted, Shown, WrongPeer};
use crate::provider;
use crate::signatures::{algorithms, verified_as_usual};

/// Verifies who was dialled.
#[derive(Debug)]
pub(super) struct Dialled {
    roots: Arc<RootCertStore>,
    admitted: Admitted,
}

impl Dialled {
    pub(super) fn new(roots: Arc<RootCertStore>, admitted: Admitted) -> Arc<Self> {
        Arc::new(Self { roots, admitted })
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
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms().all,
        )?;
        let shown = shown(end_entity)?;
        self.admitted.is_dialled(&shown, &server_name.to_str()).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    verified_as_usual!();
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

    verified_as_usual!();
}
