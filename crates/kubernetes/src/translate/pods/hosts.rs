//! The hosts annotation of a Namespace: an object of host names, each with its options.
//!
//! One host's mistake leaves that host out and no other. A host whose TLS cannot be read as it stands is
//! left out rather than served without. Pure. Must not know Secrets: what a host needs of one is named here
//! and looked up elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use model::HostName;
use serde_json::{Map, Value};

use super::json::{Fault, Named, Shown, member, parse, unknown};
use super::names::ends_are;

/// Hosts of one Namespace; the rest is left out.
const HOSTS_MAX: usize = 1_000;
/// The longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// What an annotation says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    /// Those that can be used.
    pub(super) hosts: BTreeMap<HostName, Wanted>,
    /// Hosts that are claimed, but in a way that cannot be served.
    pub(super) refused: BTreeSet<HostName>,
    /// What is wrong.
    pub(super) faults: Vec<Fault>,
}

/// How a host wants to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// By http.
    Plain,
    /// By https.
    Tls(TlsFields),
}

/// Fields of the Namespace's Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsFields {
    /// The chain.
    pub(super) certificate: String,
    /// Its key.
    pub(super) key: String,
    /// The authorities of clients, who then must show a certificate.
    pub(super) client: Option<String>,
}

/// Reads an annotation; `name` is its name, for messages.
pub(super) fn read(name: &str, text: &str) -> Hosts {
    let mut read = Hosts::default();
    let object = match parse(text) {
        Ok(Value::Object(object)) => object,
        Ok(other) => {
            let found = Named(&other);
            let message = format!(
                "annotation {name}: found {found}, expected an object of host names, as \
                 {{\"a.example.net\": {{}}}}; no host of this Namespace is served"
            );
            read.faults.push(Fault::new("InvalidHosts", message));
            return read;
        }
        Err(error) => {
            let message =
                format!("annotation {name}: {error}; no host of this Namespace is served");
            read.faults.push(Fault::new("InvalidHosts", message));
            return read;
        }
    };
    let more = object.len().saturating_sub(HOSTS_MAX);
    if more > 0 {
        let message = format!(
            "annotation {name}: {} hosts, at most {HOSTS_MAX} are served; the last {more} are left out",
            object.len()
        );
        read.faults.push(Fault::new("TooManyHosts", message));
    }
    for (host, options) in object.iter().take(HOSTS_MAX) {
        read.add(name, host, options);
    }
    read
}

impl Hosts {
    fn add(&mut self, annotation: &str, text: &str, options: &Value) {
        let at = format!("annotation {annotation}, host {}", Shown(text));
        let Some(host) = host_name(text) else {
            let message = format!(
                "{at}: expected a DNS name without wildcard and port, or an IPv4 address; left out"
            );
            self.faults.push(Fault::new("InvalidHost", message));
            return;
        };
        match wanted(&at, options, &mut self.faults) {
            Err(fault) => {
                self.faults.push(fault);
                self.refuse(host);
            }
            Ok(_) if self.refused.contains(&host) => {}
            Ok(wanted) if self.hosts.get(&host).is_some_and(|other| *other != wanted) => {
                let message = format!(
                    "{at}: the same name stands here twice, with different options; left out"
                );
                self.faults.push(Fault::new("DuplicateHost", message));
                self.refuse(host);
            }
            Ok(wanted) => {
                self.hosts.insert(host, wanted);
            }
        }
    }

    fn refuse(&mut self, host: HostName) {
        self.hosts.remove(&host);
        self.refused.insert(host);
    }
}

/// Labels of letters, digits and inner hyphens, or an IPv4 address, which looks the same.
fn host_name(text: &str) -> Option<HostName> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let label = |label: &str| {
        label.len() <= LABEL_BYTES_MAX
            && label.bytes().all(fine)
            && ends_are(label, |b| b.is_ascii_alphanumeric())
    };
    if text.split('.').all(label) { HostName::parse(text).ok() } else { None }
}

fn wanted(at: &str, options: &Value, faults: &mut Vec<Fault>) -> Result<Wanted, Fault> {
    let options = match options {
        Value::Object(options) => options,
        Value::Null => return Ok(Wanted::Plain),
        other => {
            let found = Named(other);
            let message = format!("{at}: found {found}, expected an object of options; left out");
            return Err(Fault::new("InvalidHost", message));
        }
    };
    for name in unknown(options, &["ssl"]) {
        let message = format!("{at}: the option {} is not known (ssl is) and ignored", Shown(name));
        faults.push(Fault::new("UnknownOption", message));
    }
    match member(options, "ssl") {
        None => Ok(Wanted::Plain),
        Some(Value::Object(ssl)) => tls_fields(at, ssl).map(Wanted::Tls),
        Some(other) => {
            let found = Named(other);
            let message = format!("{at}, ssl: found {found}, expected an object; left out");
            Err(Fault::new("InvalidTls", message))
        }
    }
}

fn tls_fields(at: &str, ssl: &Map<String, Value>) -> Result<TlsFields, Fault> {
    if let Some(name) =
        unknown(ssl, &["certificate", "certificateKey", "clientCertificate"]).first()
    {
        // Served without it, a host might be less protected than it was meant to be.
        let name = Shown(name);
        let message = format!(
            "{at}, ssl: {name} is not known (certificate, certificateKey and clientCertificate are); left out"
        );
        return Err(Fault::new("InvalidTls", message));
    }
    let needed = |name: &str| {
        let missing = || {
            let message = format!("{at}, ssl: {name} is missing; left out");
            Fault::new("InvalidTls", message)
        };
        member(ssl, name).ok_or_else(missing).and_then(|value| secret_field(at, name, value))
    };
    let client = member(ssl, "clientCertificate")
        .map(|value| secret_field(at, "clientCertificate", value))
        .transpose()?;
    Ok(TlsFields { certificate: needed("certificate")?, key: needed("certificateKey")?, client })
}

/// `{"valueFrom": {"secretKeyRef": {"key": FIELD}}}`
fn secret_field(at: &str, name: &str, value: &Value) -> Result<String, Fault> {
    let mut path = format!("{at}, ssl.{name}");
    let mut value = value;
    for step in ["valueFrom", "secretKeyRef", "key"] {
        let next = value.as_object().and_then(|object| member(object, step));
        path = format!("{path}.{step}");
        let Some(next) = next else {
            return Err(Fault::new(
                "InvalidTls",
                format!("{path} is missing; the host is left out"),
            ));
        };
        value = next;
    }
    match value {
        Value::String(field) if !field.is_empty() => Ok(field.clone()),
        other => {
            let found = Named(other);
            let message =
                format!("{path}: found {found}, expected a field of the Secret; left out");
            Err(Fault::new("InvalidTls", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(read: &Hosts) -> Vec<String> {
        let one = |(host, wanted): (&HostName, &Wanted)| match wanted {
            Wanted::Plain => host.to_string(),
            Wanted::Tls(TlsFields { certificate, key, client }) => {
                format!("{host} {certificate} {key} {}", client.as_deref().unwrap_or("-"))
            }
        };
        read.hosts.iter().map(one).collect()
    }

    fn reference(field: &str) -> String {
        format!(r#"{{"valueFrom":{{"secretKeyRef":{{"key":"{field}"}}}}}}"#)
    }

    #[test]
    fn good_hosts_stay_and_bad_ones_are_named() {
        for (text, hosts, refused, faults) in [
            ("{}", &[][..], 0, 0),
            (
                r#"{"jeremy-test.apigee.net": {}, "thoughtspark.org": {}}"#,
                &["jeremy-test.apigee.net", "thoughtspark.org"][..],
                0,
                0,
            ),
            (r#"{"a.test": {}, "invalid#>.host": {}, "b.test": {}}"#, &["a.test", "b.test"], 0, 1),
            (
                r#"{"Upper.TEST": {}, "single": null, "10.1.2.3": {"ssl": null}}"#,
                &["10.1.2.3", "single", "upper.test"],
                0,
                0,
            ),
            (
                r#"{"*.a": {}, "a_b": {}, "a.": {}, "a:80": {}, "-a": {}, "a-": {}, "a..b": {}, "": {}}"#,
                &[],
                0,
                8,
            ),
            (
                r#"{"::1": {}, "[::1]": {}, "a b": {}, "a\nb": {}, "\u001b[2J": {}, "a/b": {}, "a;{}": {}}"#,
                &[],
                0,
                7,
            ),
            (r#"{"a.test": {"other": 1}, "b.test": {}}"#, &["a.test", "b.test"], 0, 1),
            (r#"{"a.test": [], "b.test": "x", "c.test": 1, "d.test": {}}"#, &["d.test"], 3, 3),
            (r#"{"a.test": {}, "A.test": {}}"#, &["a.test"], 0, 0),
            (r#"{"a.test": {}, "A.test": {"ssl": {}}, "b.test": {}}"#, &["b.test"], 1, 1),
        ] {
            let read = read("hosts", text);
            assert_eq!(shown(&read), hosts, "{text}");
            assert_eq!(read.refused.len(), refused, "{text}: {:?}", read.refused);
            assert_eq!(read.faults.len(), faults, "{text}: {:?}", read.faults);
        }
    }

    #[test]
    fn what_is_no_object_of_hosts_gives_none() {
        for (text, expected) in [
            ("", "not JSON"),
            ("nonsense", "not JSON"),
            ("{\u{201c}a\u{201d}: {}}", "not JSON"),
            ("{\"a\": {}", "not JSON"),
            ("[\"a.test\"]", "found an array"),
            ("\"a.test\"", "found the text \"a.test\""),
            ("null", "found null"),
            ("7", "found the number 7"),
        ] {
            let read = read("hosts", text);
            assert!(read.hosts.is_empty() && read.faults.len() == 1, "{text}");
            assert!(read.faults[0].message.contains(expected), "{text}: {:?}", read.faults);
            assert_eq!(read.faults[0].reason, "InvalidHosts");
        }
    }

    #[test]
    fn tls_names_fields_of_the_secret() {
        let (crt, key, client) = (reference("ssl.crt"), reference("ssl.key"), reference("ca.crt"));
        let ssl = format!(r#"{{"certificate": {crt}, "certificateKey": {key}}}"#);
        let with_client = format!(
            r#"{{"certificate": {crt}, "certificateKey": {key}, "clientCertificate": {client}}}"#
        );
        let text = format!(r#"{{"a": {{"ssl": {ssl}}}, "b": {{"SSL": {with_client}}}}}"#);
        let read = read("hosts", &text);
        assert_eq!(shown(&read), ["a ssl.crt ssl.key -", "b ssl.crt ssl.key ca.crt"]);
        assert!(read.faults.is_empty(), "{:?}", read.faults);
    }

    #[test]
    fn incomplete_tls_leaves_the_host_out() {
        let (crt, key) = (reference("c"), reference("k"));
        for (ssl, expected) in [
            ("{}".to_owned(), "certificate is missing"),
            (format!(r#"{{"certificate": {crt}}}"#), "certificateKey is missing"),
            (format!(r#"{{"certificateKey": {key}}}"#), "certificate is missing"),
            (
                format!(r#"{{"certificate": {{}}, "certificateKey": {key}}}"#),
                "certificate.valueFrom is missing",
            ),
            (
                format!(r#"{{"certificate": {{"valueFrom": {{}}}}, "certificateKey": {key}}}"#),
                "certificate.valueFrom.secretKeyRef is missing",
            ),
            (
                format!(
                    r#"{{"certificate": {{"valueFrom": {{"secretKeyRef": {{}}}}}}, "certificateKey": {key}}}"#
                ),
                "secretKeyRef.key is missing",
            ),
            (
                format!(r#"{{"certificate": {}, "certificateKey": {key}}}"#, reference("")),
                "found the text \"\"",
            ),
            (
                format!(
                    r#"{{"certificate": {crt}, "certificateKey": {key}, "clientCertificate": "x"}}"#
                ),
                "clientCertificate.valueFrom is missing",
            ),
            (
                format!(
                    r#"{{"certificate": {crt}, "certificateKey": {key}, "clientCert": {crt}}}"#
                ),
                "\"clientCert\" is not known",
            ),
            ("true".to_owned(), "ssl: found true"),
        ] {
            let text = format!(r#"{{"bad.test": {{"ssl": {ssl}}}, "good.test": {{}}}}"#);
            let read = read("hosts", &text);
            assert_eq!(shown(&read), ["good.test"], "{ssl}");
            assert_eq!(read.refused.len(), 1, "{ssl}");
            let [fault] = &*read.faults else { panic!("{ssl}: {:?}", read.faults) };
            assert!(fault.message.contains(expected), "{ssl}: {}", fault.message);
        }
    }

    #[test]
    fn hosts_are_bounded() {
        let many: Vec<String> = (0..=HOSTS_MAX).map(|i| format!("\"h{i}\": {{}}")).collect();
        let read = read("hosts", &format!("{{{}}}", many.join(",")));
        assert_eq!((read.hosts.len(), read.faults.len()), (HOSTS_MAX, 1));
    }
}
