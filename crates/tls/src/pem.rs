//! Reading PEM text, bounded, into certificates and keys, with complaints that name the file and what was
//! found.
//!
//! Must never put a byte of a key into a complaint: labels of PEM sections are the most it shows.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use model::PemSource;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Largest PEM text taken. Chains are a few KiB and the machine's whole set of authorities is about 220 KiB.
const PEM_BYTES_MAX: usize = 1024 * 1024;

/// Sections named in a complaint; a bundle may have hundreds.
const LABELS_SHOWN_MAX: usize = 4;

/// What is wrong with a PEM source: the three parts of a diagnostic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// One sentence, with the file's path.
    pub(crate) problem: String,
    /// What stands there; may be empty.
    pub(crate) found: String,
    /// What should; may be empty.
    pub(crate) expected: &'static str,
}

impl Complaint {
    fn new(problem: String, found: impl Into<String>, expected: &'static str) -> Self {
        Self { problem, found: found.into(), expected }
    }
}

/// How a source is named to a person.
pub(crate) fn describe(source: &PemSource) -> String {
    match source {
        PemSource::File(path) => path.display().to_string(),
        PemSource::Inline(_) => "the given text".to_owned(),
    }
}

/// Every certificate of a source, in its order; at least one.
pub(crate) fn certificates(source: &PemSource) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    Text::read(source, "certificates")?.certificates()
}

/// What stands in a source. It may be secret.
pub(crate) struct Text<'s> {
    source: &'s PemSource,
    text: Cow<'s, [u8]>,
}

impl<'s> Text<'s> {
    /// Reads it; `what` it is to be, for a person.
    pub(crate) fn read(source: &'s PemSource, what: &str) -> Result<Self, Complaint> {
        let text = match source {
            PemSource::Inline(text) => Cow::Borrowed(&**text),
            PemSource::File(path) => Cow::Owned(read_file(path).map_err(|error| {
                let problem = format!("cannot read {what} from {}", path.display());
                Complaint::new(problem, error.to_string(), "a readable PEM file of at most 1 MiB")
            })?),
        };
        Ok(Self { source, text })
    }

    pub(crate) fn source(&self) -> &'s PemSource {
        self.source
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// Every certificate, in their order; at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Complaint> {
        const EXPECTED: &str = "PEM with one or more CERTIFICATE sections";
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let problem = match parsed {
            Ok(chain) if !chain.is_empty() => return Ok(chain),
            Ok(_) => format!("no certificate in {}", describe(self.source)),
            Err(_) => format!("{} is not well-formed PEM", describe(self.source)),
        };
        Err(Complaint::new(problem, labels(&self.text), EXPECTED))
    }

    /// The first private key.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Complaint> {
        const EXPECTED: &str =
            "PEM with a PRIVATE KEY (PKCS#8), RSA PRIVATE KEY or EC PRIVATE KEY section";
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|_| {
            let (found, source) = (labels(&self.text), describe(self.source));
            let problem = if found.contains("ENCRYPTED PRIVATE KEY") {
                format!("the private key in {source} is protected by a passphrase")
            } else {
                format!("no private key in {source}")
            };
            Complaint::new(problem, found, EXPECTED)
        })
    }
}

/// A regular file, at most [`PEM_BYTES_MAX`]. A pipe or device would block or never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    let limit = PEM_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut text)?;
    if text.len() > PEM_BYTES_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

/// The labels of the sections in a PEM text: what a person needs to see that two files were swapped.
fn labels(text: &[u8]) -> String {
    const LABEL_BYTES_MAX: usize = 40;
    let label = |line: &[u8]| -> Option<String> {
        let line = std::str::from_utf8(line.trim_ascii()).ok()?;
        let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        (label.len() <= LABEL_BYTES_MAX).then(|| label.to_owned())
    };
    let mut labels: Vec<_> = text.split(|b| *b == b'\n').filter_map(label).collect();
    if labels.is_empty() {
        let nothing = if text.trim_ascii().is_empty() { "nothing" } else { "no PEM section" };
        return nothing.to_owned();
    }
    let more = labels.len() > LABELS_SHOWN_MAX;
    labels.truncate(LABELS_SHOWN_MAX);
    let shown = labels.join(", ");
    if more { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(text: &str) -> PemSource {
        PemSource::Inline(text.as_bytes().into())
    }

    fn private_key(source: &PemSource) -> Result<PrivateKeyDer<'static>, Complaint> {
        Text::read(source, "the private key")?.private_key()
    }

    #[test]
    fn complaints_name_labels_and_never_contents() {
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let swapped = certificates(&inline(key)).unwrap_err();
        assert_eq!(swapped.found, "PRIVATE KEY");
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let locked = private_key(&inline(&locked)).unwrap_err();
        assert!(locked.problem.contains("passphrase"), "{locked:?}");
        for complaint in [swapped, locked] {
            assert!(!format!("{complaint:?}").contains("c2VjcmV0"));
        }
        let cases = [("", "nothing"), ("hello", "no PEM section")];
        for (text, found) in cases {
            assert_eq!(private_key(&inline(text)).unwrap_err().found, found);
            assert_eq!(certificates(&inline(text)).unwrap_err().found, found);
        }
    }

    #[test]
    fn cut_sections_are_refused() {
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(certificates(&inline(cut)).unwrap_err().problem.contains("not well-formed"));
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big.pem");
        std::fs::write(&big, vec![b'x'; PEM_BYTES_MAX + 1]).unwrap();
        let cases = [
            (big, "larger than 1 MiB"),
            (dir.path().join("missing.pem"), "No such file"),
            (dir.path().to_owned(), "not a regular file"),
            ("/dev/zero".into(), "not a regular file"),
        ];
        for (path, found) in cases {
            let complaint = certificates(&PemSource::File(path.clone())).unwrap_err();
            assert!(complaint.found.contains(found), "{complaint:?}");
            assert!(complaint.problem.contains(path.to_str().unwrap()), "{complaint:?}");
        }
    }
}
