//! What a reload costs a listener with thousands of certificates, of which one has changed:
//! `cargo test --release -p cloverleaf-tls figures -- --nocapture`.
//!
//! Prints and asserts nothing of time: figures belong into `bench/`.

use std::sync::Arc;
use std::time::Instant;

use model::{Certificate, PemSource, TlsTermination, TlsVersion};
use testkit::Authority;

use crate::common::{certificate, load};

const CERTIFICATES: usize = 5_000;

#[test]
fn one_of_thousands_changes() {
    let authority = Authority::new();
    let issue = |number: usize| {
        let issued = authority.server(&[&format!("h{number}.test")]);
        let inline = |text: &str| PemSource::Inline(Arc::from(text.as_bytes()));
        Certificate {
            chain: inline(&issued.chain_pem),
            key: inline(&issued.key_pem),
            ..certificate(&issued)
        }
    };
    let mut described = TlsTermination {
        certificates: (0..CERTIFICATES).map(issue).collect(),
        first_is_default: false,
        min_version: TlsVersion::V1_2,
    };
    let timed = |what: &str, described: &TlsTermination| {
        let began = Instant::now();
        let loaded = load(described).expect("they are valid");
        println!("{CERTIFICATES} certificates, {what}: {:?}", began.elapsed());
        loaded
    };
    let first = timed("the first time", &described);
    let mut before = first;
    for round in 0..3 {
        described.certificates[round * 1_000] = issue(round * 1_000);
        before = {
            let next = timed("one of them changed", &described);
            drop(before);
            next
        };
    }
    assert_eq!(before.warnings().0.len(), 0);
}
