//! The certificates and keys of a cluster: two authorities, what they sign, and the key of service account
//! tokens. ECDSA on P-256; valid for years, as a cluster for tests may stay up. Files only the owner reads.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use super::error::{Error, make_folder, write};

/// The folder of the certificates: `ca.crt`, `NAME.crt` and `NAME.key`.
#[derive(Debug, Clone)]
pub(super) struct Pki {
    folder: PathBuf,
}

/// A certificate as text, for a kubeconfig.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The authority that everything in the cluster trusts, and the one of the front proxy.
pub(super) const AUTHORITY: &str = "ca";
pub(super) const FRONT_PROXY_AUTHORITY: &str = "front-proxy-ca";
/// Signs the tokens of service accounts.
pub(super) const ACCOUNTS: &str = "accounts";

impl Pki {
    /// Both authorities and the key of service accounts.
    pub(super) fn create(folder: &Path) -> Result<Self, Error> {
        make_folder(folder)?;
        let pki = Self { folder: folder.to_owned() };
        for name in [AUTHORITY, FRONT_PROXY_AUTHORITY] {
            let key = pki.key(name)?;
            let certificate = authority(name).self_signed(&key).map_err(failed(name))?;
            write(&pki.certificate_file(name), certificate.pem())?;
        }
        let key = pki.key(ACCOUNTS)?;
        write(&folder.join(format!("{ACCOUNTS}.pub")), key.public_key_pem())?;
        Ok(pki)
    }

    /// One that [`Self::create`] made before.
    pub(super) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A certificate for a server under these DNS names and addresses.
    pub(super) fn server(&self, file: &str, user: &str, names: &[&str]) -> Result<(), Error> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).map_err(failed(file))?;
        params.distinguished_name = subject(user, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params, AUTHORITY).map(|_| ())
    }

    /// A certificate for a client that the API server knows as this user, of this group.
    pub(super) fn client(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<Signed, Error> {
        self.client_of(AUTHORITY, file, user, group)
    }

    /// As [`Self::client`], signed by this authority.
    pub(super) fn client_of(
        &self,
        signer: &str,
        file: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<Signed, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params, signer)
    }

    fn sign(&self, file: &str, mut params: CertificateParams, by: &str) -> Result<Signed, Error> {
        let text = self.read(&self.key_file(by))?;
        let signer = KeyPair::from_pem(&text).map_err(failed(by))?;
        let key = self.key(file)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::new(authority(by), signer);
        let certificate = params.signed_by(&key, &issuer).map_err(failed(file))?.pem();
        write(&self.certificate_file(file), &certificate)?;
        Ok(Signed { certificate, key: key.serialize_pem() })
    }

    fn key(&self, name: &str) -> Result<KeyPair, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed(name))?;
        write_secret(&self.key_file(name), &key.serialize_pem())?;
        Ok(key)
    }

    /// The certificate of the authority, PEM.
    pub(super) fn authority_pem(&self) -> Result<String, Error> {
        self.read(&self.certificate_file(AUTHORITY))
    }

    pub(super) fn certificate_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub(super) fn key_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn read(&self, file: &Path) -> Result<String, Error> {
        std::fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))
    }
}

/// Writes a file that only its owner may read.
pub(super) fn write_secret(file: &Path, text: &str) -> Result<(), Error> {
    let written = || {
        let mut options = OpenOptions::new();
        let mut opened = options.create(true).truncate(true).write(true).mode(0o600).open(file)?;
        opened.write_all(text.as_bytes())
    };
    written().map_err(Error::io(format!("write {}", file.display())))
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("cloverleaf-test-{name}"), None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Kubernetes reads the user from the common name and the group from the organization.
fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn failed(name: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Certificate { name, source }
}
