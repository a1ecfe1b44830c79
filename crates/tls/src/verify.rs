//! Verifying an upstream's certificate: against authorities, or not at all on the user's word.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::leaf::{Leaf, Validity};
use crate::provider;
use crate::signatures::verified_as_usual;

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
        Err(_) => Arc::new(Blind::TrustsNobody),
    }
}

/// Verifies nothing about who answers, but still that the peer holds the key of the certificate it shows.
pub(crate) fn nothing() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Blind::TrustsAnybody)
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

    verified_as_usual!();
}

/// Does not look at the certificate.
#[derive(Debug, Clone, Copy)]
enum Blind {
    TrustsNobody,
    TrustsAnybody,
}

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::TrustsNobody => Err(CertificateError::UnknownIssuer.into()),
            Self::TrustsAnybody => Ok(ServerCertVerified::assertion()),
        }
    }

    verified_as_usual!();
}
