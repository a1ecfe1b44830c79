//! Which certificate stands for which name.

use cloverleaf_kubernetes::objects::Key;
use cloverleaf_kubernetes::translate::{IngressOptions, Options, Translation};
use model::PemSource;

use crate::world::*;

/// What each certificate says, and its hosts.
fn served(translation: &Translation) -> Vec<(String, String)> {
    let one = |certificate: &model::Certificate| {
        let PemSource::Inline(chain) = &certificate.chain else { panic!("a file") };
        let says = String::from_utf8_lossy(chain).rsplit(' ').next().unwrap_or_default().to_owned();
        let hosts: Vec<String> = certificate.hosts.iter().map(ToString::to_string).collect();
        (says, hosts.join(" "))
    };
    translation.certificates.iter().map(one).collect()
}

fn pair(says: &str, hosts: &str) -> (String, String) {
    (says.to_owned(), hosts.to_owned())
}

fn tls(host: &str, entries: &str) -> String {
    format!("{}, tls: [{entries}]", one_path(host, "Prefix", "/", "web"))
}

#[test]
fn declared_names_decide() {
    let manifests = service("web")
        + &secret("one", "one")
        + &secret("two", "two")
        + &ingress("a", 1, "", &tls("a.test", "{hosts: [b.test, '*.C.test'], secretName: one}"))
        + &ingress("b", 2, "", &tls("d.test", "{secretName: two}"))
        + &ingress("c", 3, "", &tls("e.test", "{hosts: [e.test], secretName: one}"))
        + &ingress("d", 4, "", &tls("f.test", "{hosts: [f.test]}"));
    let translation = translate(&manifests);
    no_problems(&translation);
    assert_eq!(
        served(&translation),
        [pair("one", "*.c.test b.test e.test"), pair("two", "d.test")],
        "a Secret is one certificate; without hosts the rules' count; without a Secret there is none"
    );
}

#[test]
fn the_oldest_has_a_name_even_if_its_secret_is_bad() {
    let manifests = |old: &str| {
        service("web")
            + &secret("a/cert", old)
            + &secret("b/cert", "young")
            + &ingress("a/x", 1, "", &tls("x.test", "{hosts: [x.test], secretName: cert}"))
            + &ingress("b/x", 2, "", &tls("y.test", "{hosts: [x.test, y.test], secretName: cert}"))
    };
    let translation = translate(&manifests("old"));
    assert_eq!(served(&translation), [pair("old", "x.test"), pair("young", "y.test")]);
    has_problem(
        &translation,
        "Ingress b/x",
        "TlsHostTaken",
        "x.test, whose certificate is the one of Ingress a/x",
    );
    let translation = translate(&manifests("mismatched"));
    assert_eq!(served(&translation), [pair("young", "y.test")]);
}

#[test]
fn bad_certificates_are_left_out_and_odd_ones_served() {
    let cases: [(&str, String, &str, &str, usize); 7] = [
        (
            "mismatched",
            secret("cert", "mismatched"),
            "UnusableCertificate",
            "the key does not belong",
            0,
        ),
        (
            "expired",
            secret("cert", "expired"),
            "DoubtfulCertificate",
            "expired on 2001-01-01; it is used all the same",
            1,
        ),
        (
            "none",
            String::new(),
            "UnusableCertificate",
            "has no Secret of type kubernetes.io/tls with that name",
            0,
        ),
        (
            "not PEM",
            secret("cert", "x").replace("-----BEGIN CERTIFICATE-----", "hello"),
            "UnusableCertificate",
            "the certificate is not PEM",
            0,
        ),
        (
            "no key",
            secret("cert", "x").replace("tls.key", "other"),
            "UnusableCertificate",
            "that Secret has no field tls.key",
            0,
        ),
        (
            "empty key",
            secret("cert", "x").replace("-----BEGIN PRIVATE KEY----- hidden", " "),
            "UnusableCertificate",
            "the private key is empty",
            0,
        ),
        (
            "of another type",
            secret("cert", "x").replace("type: kubernetes.io/tls", "type: Opaque"),
            "UnusableCertificate",
            "has no Secret of type kubernetes.io/tls",
            0,
        ),
    ];
    for (case, secret_manifest, reason, says, certificates) in cases {
        let manifests = service("web")
            + &secret_manifest
            + &secret("fine", "fine")
            + &ingress("a", 1, "", &tls("a.test", "{hosts: [a.test], secretName: cert}"))
            + &ingress("b", 2, "", &tls("b.test", "{hosts: [b.test], secretName: fine}"));
        let translation = translate(&manifests);
        has_problem(&translation, "Ingress default/a", reason, says);
        assert_eq!(translation.problems.len(), 1, "{case}");
        assert_eq!(translation.certificates.len(), certificates + 1, "{case}");
        assert_eq!(route(&translation, "a.test", "/"), "service/default/web/80", "{case}");
        assert!(!problems(&translation).contains("hidden"), "{case}: a key was shown");
    }
}

#[test]
fn bad_hosts_are_left_out() {
    let manifests = service("web")
        + &secret("cert", "good")
        + &ingress(
            "a",
            1,
            "",
            &tls("a.test", "{hosts: ['a\\u0007', '*', a.test, ''], secretName: cert}"),
        )
        + &ingress("b", 2, "", &tls("", "{secretName: cert}"));
    let translation = translate(&manifests.replace("'a\\u0007'", "\"a\\u0007\""));
    assert_eq!(served(&translation), [pair("good", "a.test")]);
    has_problem(
        &translation,
        "Ingress default/a",
        "InvalidHost",
        "spec.tls[0].hosts has \"a\\u{7}\"",
    );
    has_problem(&translation, "Ingress default/a", "InvalidHost", "spec.tls[0].hosts has \"*\"");
    has_problem(&translation, "Ingress default/b", "TlsWithoutHosts", "spec.tls[0] has no host");
}

#[test]
fn the_default_certificate() {
    let default = |name: &str| Options {
        ingress: Some(IngressOptions {
            default_certificate: Some(Key { namespace: "infra".into(), name: name.into() }),
            ..IngressOptions::default()
        }),
        ..options()
    };
    let manifests = secret("infra/good", "good") + &secret("infra/bad", "mismatched");
    let translation = translate_with(default("good"), &manifests);
    assert!(translation.default_certificate.is_some() && translation.certificates.is_empty());
    no_problems(&translation);
    for bad in ["bad", "none"] {
        let translation = translate_with(default(bad), &manifests);
        assert!(translation.default_certificate.is_none());
        let object = format!("Secret infra/{bad}");
        has_problem(&translation, &object, "UnusableCertificate", "as the default certificate: ");
    }
}
