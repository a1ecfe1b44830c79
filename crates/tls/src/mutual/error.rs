//! Why there is no connection between two equals, in the same words on both sides.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use super::shown::WrongPeer;

/// What went wrong; a metric label by [`Self::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MutualErrorKind {
    /// What the other side sent is not TLS.
    NotTls,
    /// It shows no certificate.
    NoCertificate,
    /// No authority that is trusted here has signed its certificate.
    Untrusted,
    /// Its certificate, or one above it, has expired.
    Expired,
    /// Its certificate, or one above it, is not valid yet.
    NotYetValid,
    /// Its certificate is good, but somebody else's.
    WrongPeer,
    /// Its certificate is wrong in another way.
    BadCertificate,
    /// It does not accept our certificate.
    Refused,
    /// No version, cipher suite or protocol in common, or a message out of place.
    Handshake,
    /// It closed the connection before the handshake was complete.
    Closed,
    /// The connection failed.
    Io,
}

impl MutualErrorKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::NotTls,
        Self::NoCertificate,
        Self::Untrusted,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongPeer,
        Self::BadCertificate,
        Self::Refused,
        Self::Handshake,
        Self::Closed,
        Self::Io,
    ];

    /// As a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::Untrusted => "untrusted",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongPeer => "wrong_peer",
            Self::BadCertificate => "bad_certificate",
            Self::Refused => "refused",
            Self::Handshake => "handshake",
            Self::Closed => "closed",
            Self::Io => "io",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "what it sent is not TLS",
            Self::NoCertificate => "it shows no certificate",
            Self::Untrusted => "its certificate is signed by no authority trusted here",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::WrongPeer => "its certificate is somebody else's",
            Self::BadCertificate => "its certificate is not acceptable",
            Self::Refused => "it does not accept our certificate",
            Self::Handshake => "the handshake failed",
            Self::Closed => "it closed the connection during the handshake",
            Self::Io => "the connection failed during the handshake",
        }
    }
}

/// A handshake that failed. The sentence does not name the peer: the caller does.
#[derive(Debug, thiserror::Error)]
#[error("{}", kind.sentence())]
pub struct MutualError {
    kind: MutualErrorKind,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MutualError {
    pub(super) fn new(kind: MutualErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> MutualErrorKind {
        self.kind
    }

    /// Reads an error of a connection whose handshake was complete on this side: in TLS 1.3 the one who dialled hears
    /// only then that the other does not accept it. `None` where it is something else.
    #[must_use]
    pub fn after_handshake(error: &io::Error) -> Option<Self> {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())?;
        matches!(tls, Error::AlertReceived(_)).then(|| tls.clone().into())
    }
}

impl From<io::Error> for MutualError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => tls.clone().into(),
            None => {
                let kind = match error.kind() {
                    // Who closes without reading all that was sent resets.
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe => MutualErrorKind::Closed,
                    _ => MutualErrorKind::Io,
                };
                Self { kind, source: Some(Box::new(error)) }
            }
        }
    }
}

impl From<Error> for MutualError {
    fn from(error: Error) -> Self {
        if let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = &error
            && let Some(wrong) = inner.downcast_ref::<WrongPeer>()
        {
            return Self::from(wrong.clone());
        }
        Self { kind: kind_of(&error), source: Some(Box::new(error)) }
    }
}

impl From<WrongPeer> for MutualError {
    fn from(wrong: WrongPeer) -> Self {
        Self { kind: MutualErrorKind::WrongPeer, source: Some(Box::new(wrong)) }
    }
}

fn kind_of(error: &Error) -> MutualErrorKind {
    use AlertDescription as Alert;
    match error {
        Error::InvalidCertificate(error) => kind_of_certificate(error),
        Error::NoCertificatesPresented => MutualErrorKind::NoCertificate,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => MutualErrorKind::NotTls,
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => MutualErrorKind::Refused,
        _ => MutualErrorKind::Handshake,
    }
}

fn kind_of_certificate(error: &CertificateError) -> MutualErrorKind {
    match error {
        // A bad signature: the issuer has the name of an authority that is trusted, but not its key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            MutualErrorKind::Untrusted
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            MutualErrorKind::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            MutualErrorKind::NotYetValid
        }
        _ => MutualErrorKind::BadCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::HashSet<_> =
            MutualErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(labels.len(), MutualErrorKind::ALL.len());
    }
}
