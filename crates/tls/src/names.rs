//! Who the holder of a client's certificate is: the names in it. Pure.
//!
//! Must not know what a name allows.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The names in a client's certificate that has been verified, as they are written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientNames {
    /// The subject's common names: one, usually.
    pub common_names: Vec<String>,
    /// DNS names among the subject's alternative names.
    pub dns_names: Vec<String>,
    /// URIs among the subject's alternative names, such as a SPIFFE ID.
    pub uris: Vec<String>,
}

impl ClientNames {
    /// Reads a certificate; without names where it is none.
    pub(crate) fn parse(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let common = certificate.subject().iter_common_name();
        let common_names = common.filter_map(|name| name.as_str().ok()).map(str::to_owned);
        let mut names = Self { common_names: common_names.collect(), ..Self::default() };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_their_kind() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        use testkit::certs::Wanted;
        let wanted = Wanted::peer(&["Agent.one"]).uri("spiffe://one/agent").common_name("one");
        let pem = testkit::Authority::new().issue(&wanted).chain_pem;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let names = ClientNames::parse(&der);
        assert_eq!(names.common_names, ["one"]);
        assert_eq!(names.dns_names, ["Agent.one"]);
        assert_eq!(names.uris, ["spiffe://one/agent"]);
        assert_eq!(ClientNames::parse(b"no certificate"), ClientNames::default());
    }
}
