//! Whether certificates can be served, asked once for each content.
//!
//! Who asks what is the program's choice ([`CertificateCheck`]), because the crate that knows certificates
//! is none of this one's. Answers are kept while their source still uses the certificate.

use std::sync::Arc;

use model::{Certificate, PemSource};
use rustc_hash::FxHashMap;

/// Says whether a certificate can be served: what is odd about it all the same (it has expired), or why it
/// cannot (its key is another's). Sentences without a full stop, without secrets.
pub type CertificateCheck = fn(&Certificate) -> Result<Vec<String>, String>;

type Answer = Result<Vec<String>, String>;

/// Chain, key and authorities by the place of their text in memory; [`Kept`] holds on to them, so that no
/// other text can come to stand there.
type Identity = [usize; 3];

#[derive(Debug)]
struct Kept {
    answer: Answer,
    /// Which source asked, and in which of its rounds last.
    source: &'static str,
    round: u64,
    _texts: [Option<Arc<[u8]>>; 3],
}

/// Answers so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    check: Option<CertificateCheck>,
    answers: FxHashMap<Identity, Kept>,
    source: &'static str,
    round: u64,
}

impl Checks {
    pub(super) fn new(check: Option<CertificateCheck>) -> Self {
        Self { check, ..Self::default() }
    }

    /// Forgets all answers: time has passed.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
    }

    /// A source begins to draft.
    pub(super) fn begin(&mut self, source: &'static str) {
        self.source = source;
        self.round += 1;
    }

    /// The source is done: what it did not ask for again is forgotten.
    pub(super) fn end(&mut self) {
        let (source, round) = (self.source, self.round);
        self.answers.retain(|_, kept| kept.source != source || kept.round == round);
    }

    /// Whether the certificate can be served; see [`CertificateCheck`]. The PEM text must be there and look
    /// like PEM; the rest is the program's check.
    pub(crate) fn check(&mut self, certificate: &Certificate) -> Answer {
        let authorities = certificate.client_verification.as_ref().map(|v| &v.authorities);
        let texts = [Some(&certificate.chain), Some(&certificate.key), authorities].map(inline);
        let identity = texts.each_ref().map(|text| text.as_ref().map_or(0, |t| t.as_ptr().addr()));
        if let Some(kept) = self.answers.get_mut(&identity) {
            kept.round = self.round;
            kept.source = self.source;
            return kept.answer.clone();
        }
        let answer = looks_like_pem(certificate)
            .and_then(|()| self.check.map_or(Ok(Vec::new()), |check| check(certificate)));
        let kept =
            Kept { answer: answer.clone(), source: self.source, round: self.round, _texts: texts };
        self.answers.insert(identity, kept);
        answer
    }
}

fn inline(source: Option<&PemSource>) -> Option<Arc<[u8]>> {
    match source {
        Some(PemSource::Inline(text)) => Some(Arc::clone(text)),
        _ => None,
    }
}

/// What can be told without reading a certificate.
fn looks_like_pem(certificate: &Certificate) -> Result<(), String> {
    let parts = [
        ("the certificate", &certificate.chain, "-----BEGIN CERTIFICATE-----"),
        ("the private key", &certificate.key, "PRIVATE KEY-----"),
    ];
    for (what, source, marker) in parts {
        let PemSource::Inline(text) = source else { continue };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(format!("{what} is empty"));
        }
        if !text.windows(marker.len()).any(|window| window == marker.as_bytes()) {
            return Err(format!("{what} is not PEM (expected a line {marker:?})"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use model::Place;

    use super::*;

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    fn count(_: &Certificate) -> Answer {
        ASKED.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    }

    fn certificate(says: &str) -> Certificate {
        let text = |text: String| PemSource::Inline(text.into_bytes().into());
        Certificate {
            chain: text(format!("-----BEGIN CERTIFICATE----- {says}")),
            key: text("-----BEGIN PRIVATE KEY-----".to_owned()),
            hosts: Vec::new(),
            client_verification: None,
            place: Place::whole("test"),
        }
    }

    #[test]
    fn each_content_is_looked_at_once_while_it_is_used() {
        let (one, two) = (certificate("one"), certificate("two"));
        let mut checks = Checks::new(Some(count));
        let mut asked = |round: &[(&'static str, &[&Certificate])]| {
            let before = ASKED.load(Ordering::Relaxed);
            for (source, certificates) in round {
                checks.begin(source);
                for certificate in *certificates {
                    checks.check(certificate).unwrap();
                }
                checks.end();
            }
            ASKED.load(Ordering::Relaxed) - before
        };
        assert_eq!(asked(&[("ingress", &[&one, &two, &one])]), 2);
        assert_eq!(asked(&[("ingress", &[&one, &two])]), 0);
        assert_eq!(asked(&[("pods", &[]), ("ingress", &[&two])]), 0, "another source's are kept");
        assert_eq!(asked(&[("ingress", &[&one, &two])]), 1, "one was not used in between");
        checks.forget();
        assert!(checks.answers.is_empty());
    }
}
