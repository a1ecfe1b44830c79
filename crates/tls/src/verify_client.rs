//! Verifying a client's certificate against authorities, as a listener demands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};

use crate::leaf::{Leaf, Validity};
use crate::provider;
use crate::signatures::verified_as_usual;
use crate::verified::Verified;

/// A certificate is accepted that one of the authorities has issued, or that is itself one of those given:
/// as a self-signed one made to be an authority is, which a strict path builder refuses as a client's own.
///
/// # Errors
/// Where there are no authorities.
pub(crate) fn against(
    roots: RootCertStore,
    given: Vec<CertificateDer<'static>>,
    optional: bool,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let provider: Arc<CryptoProvider> = provider::provider();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    Ok(Arc::new(Trusting { authorities: builder.build()?, verified: Verified::default(), given }))
}

#[derive(Debug)]
struct Trusting {
    authorities: Arc<dyn ClientCertVerifier>,
    /// By the authorities.
    verified: Verified,
    given: Vec<CertificateDer<'static>>,
}

impl ClientCertVerifier for Trusting {
    fn offer_client_auth(&self) -> bool {
        self.authorities.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.authorities.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.given.iter().any(|given| given == end_entity) {
            if !self.verified.has(end_entity, intermediates, now) {
                self.authorities.verify_client_cert(end_entity, intermediates, now)?;
                self.verified.remember(end_entity, intermediates, now);
            }
            return Ok(ClientCertVerified::assertion());
        }
        let leaf = Leaf::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        match leaf.validity(SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())) {
            Validity::NotYet => Err(CertificateError::NotValidYet.into()),
            Validity::Over => Err(CertificateError::Expired.into()),
            Validity::Now => Ok(ClientCertVerified::assertion()),
        }
    }

    verified_as_usual!();
}
