//! Certificates for tests: an authority, and what it signs. ECDSA on P-256; the files live as long as the
//! authority.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority and the folder its certificates are written to.
pub struct Authority {
    dir: TempDir,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    issued: AtomicUsize,
}

/// A certificate with its key, as text and as files.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf alone, PEM.
    pub chain_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
    /// A file with the former.
    pub chain_file: PathBuf,
    /// A file with the latter.
    pub key_file: PathBuf,
}

/// Describes a certificate to be issued.
#[derive(Debug, Clone)]
pub struct Wanted {
    names: Vec<String>,
    uris: Vec<String>,
    common_name: String,
    from: SystemTime,
    until: SystemTime,
    usages: Vec<ExtendedKeyUsagePurpose>,
    authority: bool,
}

impl Wanted {
    /// For these DNS names (also `*.name`) and IP addresses, valid since yesterday for 90 days.
    #[must_use]
    pub fn server(names: &[&str]) -> Self {
        let now = SystemTime::now();
        Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            uris: Vec::new(),
            common_name: "testkit".to_owned(),
            from: now - DAY,
            until: now + 90 * DAY,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            authority: false,
        }
    }

    /// For a client, with its name.
    #[must_use]
    pub fn client(name: &str) -> Self {
        Self { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Self::server(&[name]) }
    }

    /// For one that connects and is connected to, with its names and addresses.
    #[must_use]
    pub fn peer(names: &[&str]) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { usages, ..Self::server(names) }
    }

    /// With a URI among its names, as that of a SPIFFE ID.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// Marked as an authority, as `openssl req -x509` does.
    #[must_use]
    pub fn authority(mut self) -> Self {
        self.authority = true;
        self
    }

    /// With this common name.
    #[must_use]
    pub fn common_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.common_name);
        self
    }

    /// Valid between two times.
    #[must_use]
    pub fn valid(mut self, from: SystemTime, until: SystemTime) -> Self {
        (self.from, self.until) = (from, until);
        self
    }

    /// Valid until yesterday.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = SystemTime::now();
        self.valid(now - 30 * DAY, now - DAY)
    }

    /// Valid from tomorrow.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        let now = SystemTime::now();
        self.valid(now + DAY, now + 30 * DAY)
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).expect("names for SAN");
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("a URI for SAN"));
        params.subject_alt_names.extend(self.uris.iter().map(uri));
        params.distinguished_name = named(&self.common_name);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(self.from);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(self.until);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if self.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        params.extended_key_usages.clone_from(&self.usages);
        params
    }
}

impl Authority {
    /// A new one, trusted by nobody yet, with a name that no other has in this process.
    ///
    /// # Panics
    /// If the machine gives no temporary folder; so do the others here.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self::named(&format!("testkit authority {}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new one with this name, and a key of its own.
    ///
    /// # Panics
    /// If the machine gives no temporary folder.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate_pem = params.self_signed(&key).expect("a self-signed certificate").pem();
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("ca.pem"), &certificate_pem).expect("the file ca.pem");
        let issuer = Issuer::new(params, key);
        Self { dir, certificate_pem, issuer, issued: AtomicUsize::new(0) }
    }

    /// Its own certificate, PEM: what a client is to trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A file with [`Self::pem`].
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A server certificate for these names and addresses.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(&Wanted::server(names))
    }

    /// What is wanted, with a new key.
    ///
    /// # Panics
    /// If a name cannot stand in a certificate.
    #[must_use]
    pub fn issue(&self, wanted: &Wanted) -> Issued {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = wanted.params().signed_by(&key, &self.issuer).expect("a certificate");
        self.written(certificate.pem(), key.serialize_pem())
    }

    /// What is wanted, signed by its own key and by nobody here.
    ///
    /// # Panics
    /// If a name cannot stand in a certificate.
    #[must_use]
    pub fn self_signed(&self, wanted: &Wanted) -> Issued {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = wanted.params().self_signed(&key).expect("a certificate");
        self.written(certificate.pem(), key.serialize_pem())
    }

    fn written(&self, chain_pem: String, key_pem: String) -> Issued {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let chain_file = self.dir.path().join(format!("{number}.crt.pem"));
        let key_file = self.dir.path().join(format!("{number}.key.pem"));
        std::fs::write(&chain_file, &chain_pem).expect("the certificate's file");
        std::fs::write(&key_file, &key_pem).expect("the key's file");
        Issued { chain_pem, key_pem, chain_file, key_file }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Issued {
    /// Writes this certificate and key over another's files, as a renewal does: each by a rename.
    ///
    /// # Panics
    /// If the files cannot be written.
    pub fn replace(&self, other: &Self) {
        for (text, file) in [(&self.chain_pem, &other.chain_file), (&self.key_pem, &other.key_file)]
        {
            let beside = file.with_extension("new");
            std::fs::write(&beside, text).expect("a file beside the old one");
            std::fs::rename(&beside, file).expect("a rename over the old one");
        }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970")
}
