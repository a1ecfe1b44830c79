//! The environment variables of the 30x dispatcher, under their names, each checked: all mistakes are said
//! at once.
//!
//! Pure: reads through a function. An empty variable says nothing, as there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Diagnostic, HostName, Place, Target};

use super::names::{
    is_annotation_name, is_header_name, is_label_name, is_secret_field, is_subdomain,
};
use super::options::{DefaultCertificate, DefaultReturn, PodOptions};
use super::selector::LabelSelector;
use super::url_path;
use crate::objects::Text;

/// Every variable that is read.
pub const VARIABLES: [&str; 20] = [
    "API_KEY_SECRET_NAME",
    "API_KEY_SECRET_FIELD",
    "APP_NAME_LABEL",
    "APP_REV_LABEL",
    "ENV_LABEL",
    "HOSTS_ANNOTATION",
    "ORG_LABEL",
    "PATHS_ANNOTATION",
    "ROUTABLE_LABEL_SELECTOR",
    "API_KEY_HEADER",
    "DEFAULT_LOCATION_RETURN",
    "NGINX_ENABLE_HEALTH_CHECKS",
    "ENABLE_NGINX_UPSTREAM_CHECK",
    "NGINX_MAX_CLIENT_BODY_SIZE",
    "NGINX_STATUS_PATH",
    "PORT",
    "SSL_PORT",
    "SSL_CERT",
    "SSL_KEY",
    "SSL_CERT_DIR",
];

impl PodOptions {
    /// Reads [`VARIABLES`]. A variable that is not set or is empty leaves the default.
    ///
    /// # Errors
    /// One for each variable that cannot be used: its name, its value, what was expected.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = Reader { get: &get, errors: Vec::new() };
        let mut options = Self::default();
        reader.names(&mut options);
        reader.serving(&mut options);
        reader.tls(&mut options);
        if reader.errors.is_empty() { Ok(options) } else { Err(reader.errors) }
    }
}

struct Reader<'g> {
    get: &'g dyn Fn(&str) -> Option<String>,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn text(&self, variable: &str) -> Option<String> {
        (self.get)(variable).filter(|value| !value.is_empty())
    }

    /// Reads a variable into its place, if it says something that can be used.
    fn set<T>(
        &mut self,
        variable: &str,
        expected: impl fmt::Display,
        place: &mut T,
        read: impl FnOnce(&str) -> Option<T>,
    ) {
        let Some(value) = self.text(variable) else { return };
        match read(&value) {
            Some(read) => *place = read,
            None => self.refuse(variable, "cannot be used", value, expected),
        }
    }

    fn refuse(
        &mut self,
        variable: &str,
        problem: &str,
        value: String,
        expected: impl fmt::Display,
    ) {
        let diagnostic = Diagnostic::error(place(variable), "", problem);
        self.errors.push(diagnostic.value(value).expected(expected.to_string()));
    }

    fn names(&mut self, options: &mut PodOptions) {
        const LABEL: &str = "the name of a label, as example.com/name";
        const ANNOTATION: &str = "the name of an annotation, as example.com/name";
        let annotation = |text: &str| is_annotation_name(text).then(|| Text::from(text));
        let label = |text: &str| is_label_name(text).then(|| Text::from(text));
        let names = &mut options.names;
        self.set("HOSTS_ANNOTATION", ANNOTATION, &mut names.hosts, annotation);
        self.set("PATHS_ANNOTATION", ANNOTATION, &mut names.paths, annotation);
        for (variable, place) in ["ORG_LABEL", "ENV_LABEL"].iter().zip(&mut names.namespace_labels)
        {
            self.set(variable, LABEL, place, label);
        }
        for (variable, place) in
            ["APP_NAME_LABEL", "APP_REV_LABEL"].iter().zip(&mut names.pod_labels)
        {
            self.set(variable, LABEL, place, label);
        }
        if let Some(value) = self.text("ROUTABLE_LABEL_SELECTOR") {
            match LabelSelector::parse(&value) {
                Ok(selector) => options.selector = selector,
                Err(error) => self.refuse(
                    "ROUTABLE_LABEL_SELECTOR",
                    &error.to_string(),
                    value,
                    "a label selector, as example.com/routable=true",
                ),
            }
        }
        self.set("API_KEY_SECRET_NAME", "the name of a Secret", &mut options.secret_name, |text| {
            is_subdomain(text).then(|| text.into())
        });
        self.set(
            "API_KEY_SECRET_FIELD",
            "a field of a Secret",
            &mut options.api_key_field,
            |text| is_secret_field(text).then(|| text.into()),
        );
        self.set("API_KEY_HEADER", "the name of a header", &mut options.api_key_header, |text| {
            is_header_name(text).then(|| text.to_ascii_lowercase().into())
        });
    }

    fn serving(&mut self, options: &mut PodOptions) {
        const PORT: &str = "a number from 1 to 65535";
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        self.set("PORT", PORT, &mut options.port, port);
        self.set("SSL_PORT", PORT, &mut options.tls_port, port);
        self.set(
            "DEFAULT_LOCATION_RETURN",
            "a status from 200 to 599, or a URI with scheme http or https, a host and no query",
            &mut options.default_return,
            default_return,
        );
        self.set(
            "NGINX_MAX_CLIENT_BODY_SIZE",
            "a number of bytes, also with k, m or g behind it; 0 for no bound",
            &mut options.request_body_max,
            size,
        );
        if let Some(value) = self.text("NGINX_STATUS_PATH") {
            match url_path::decoded(&value) {
                Ok(path) => options.status_path = path,
                Err(fault) => self.refuse("NGINX_STATUS_PATH", "is no path", value, fault),
            }
        }
        self.health_checks(options);
    }

    fn health_checks(&mut self, options: &mut PodOptions) {
        const NAMES: [&str; 2] = ["NGINX_ENABLE_HEALTH_CHECKS", "ENABLE_NGINX_UPSTREAM_CHECK"];
        let mut said = [None; 2];
        for (variable, place) in NAMES.iter().zip(&mut said) {
            self.set(variable, "true or false", place, |text| boolean(text).map(Some));
        }
        match said {
            [Some(one), Some(other)] if one != other => {
                let expected = format!("the same as {}, which is {one}", NAMES[0]);
                self.refuse(NAMES[1], "contradicts its other name", other.to_string(), expected);
            }
            [one, other] => options.health_checks = one.or(other).unwrap_or(false),
        }
    }

    fn tls(&mut self, options: &mut PodOptions) {
        let file = "the path of a PEM file, because the other one of SSL_CERT and SSL_KEY is set";
        match (self.text("SSL_CERT"), self.text("SSL_KEY")) {
            (Some(chain), Some(key)) => {
                options.tls = true;
                options.default_certificate =
                    Some(DefaultCertificate { chain: chain.into(), key: key.into() });
            }
            (Some(_), None) => self.refuse("SSL_KEY", "is missing", String::new(), file),
            (None, Some(_)) => self.refuse("SSL_CERT", "is missing", String::new(), file),
            (None, None) => {}
        }
        if let Some(value) = self.text("SSL_CERT_DIR") {
            let unused = "is read as OpenSSL has it, for the authorities of https upstreams; certificates of \
                          hosts are never written to disk";
            options
                .warnings
                .push(Diagnostic::warning(place("SSL_CERT_DIR"), "", unused).value(value));
        }
    }
}

fn place(variable: &str) -> Place {
    Place::whole(format!("environment {variable}"))
}

/// As Go's `ParseBool`, which the dispatcher used.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A size as nginx writes it, `34m`; with a `b` behind the unit if one likes. 0 is no bound.
#[allow(clippy::option_option, reason = "none of a size, or the size that is no bound")]
fn size(text: &str) -> Option<Option<u64>> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    Some((bytes > 0).then_some(bytes))
}

fn default_return(text: &str) -> Option<DefaultReturn> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse().ok()? {
            444 => Some(DefaultReturn::Close),
            status @ 200..=599 => Some(DefaultReturn::Status(status)),
            _ => None,
        };
    }
    let (scheme, rest) = text.split_once("://")?;
    let (tls, default_port) = match &*scheme.to_ascii_lowercase() {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = match path {
        "" | "/" => None,
        path => Some(Arc::from(url_path::encoded(path).ok()?)),
    };
    Some(DefaultReturn::Forward { tls, target: target(authority, default_port)?, path })
}

fn target(authority: &str, default_port: u16) -> Option<Target> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port > 0)?)
        }
        _ => (authority, default_port),
    };
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let name = HostName::parse(host).ok()?;
    Some(match name.as_str().parse::<IpAddr>() {
        Ok(address) => Target::Address((address, port).into()),
        Err(_) => Target::Named(name, port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<PodOptions, Vec<String>> {
        let get = |name: &str| {
            assert!(VARIABLES.contains(&name), "{name}");
            let of_name = |(n, _): &&(&str, &str)| *n == name;
            variables.iter().find(of_name).map(|(_, value)| (*value).to_owned())
        };
        PodOptions::from_environment(get)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(read(&[]), Ok(PodOptions::default()));
        let empty: Vec<_> = VARIABLES.iter().map(|name| (*name, "")).collect();
        assert_eq!(read(&empty), Ok(PodOptions::default()));
    }

    #[test]
    fn every_variable_is_read() {
        let options = read(&[
            ("API_KEY_SECRET_NAME", "keys"),
            ("API_KEY_SECRET_FIELD", "public-api-key"),
            ("APP_NAME_LABEL", "name"),
            ("APP_REV_LABEL", "rev"),
            ("ENV_LABEL", "env"),
            ("HOSTS_ANNOTATION", "github.com/30x.dispatcher.hosts.public"),
            ("ORG_LABEL", "org"),
            ("PATHS_ANNOTATION", "github.com/30x.dispatcher.paths.public"),
            ("ROUTABLE_LABEL_SELECTOR", "routable in (yes,true),!hidden"),
            ("API_KEY_HEADER", "X-Api-Key"),
            ("DEFAULT_LOCATION_RETURN", "https://errors.example.net:8443/not-found"),
            ("NGINX_ENABLE_HEALTH_CHECKS", "true"),
            ("NGINX_MAX_CLIENT_BODY_SIZE", "34m"),
            ("NGINX_STATUS_PATH", "/status%20path"),
            ("PORT", "12345"),
            ("SSL_PORT", "8443"),
            ("SSL_CERT", "/tls/cert.pem"),
            ("SSL_KEY", "/tls/key.pem"),
            ("SSL_CERT_DIR", "/var/tls"),
        ])
        .unwrap();
        let names = &options.names;
        assert_eq!(&*names.hosts, "github.com/30x.dispatcher.hosts.public");
        assert_eq!(&*names.paths, "github.com/30x.dispatcher.paths.public");
        assert_eq!(names.namespace_labels, ["org", "env"].map(Text::from));
        assert_eq!(names.pod_labels, ["name", "rev"].map(Text::from));
        assert_eq!((&*options.secret_name, &*options.api_key_field), ("keys", "public-api-key"));
        assert_eq!(&*options.api_key_header, "x-api-key");
        assert_eq!(options.selector.as_str(), "routable in (yes,true),!hidden");
        let expected = DefaultReturn::Forward {
            tls: true,
            target: Target::Named(HostName::parse("errors.example.net").unwrap(), 8443),
            path: Some("/not-found".into()),
        };
        assert_eq!(options.default_return, expected);
        assert!(options.health_checks && options.tls);
        assert_eq!(options.request_body_max, Some(34 << 20));
        assert_eq!(options.status_path, "/status path");
        assert_eq!((options.port, options.tls_port), (12345, 8443));
        let certificate = options.default_certificate.unwrap();
        assert_eq!(certificate.chain.to_str(), Some("/tls/cert.pem"));
        assert_eq!(certificate.key.to_str(), Some("/tls/key.pem"));
        let [warning] = &*options.warnings else { panic!("{:?}", options.warnings) };
        assert!(
            warning.to_string().contains("SSL_CERT_DIR: warning: is read as OpenSSL"),
            "{warning}"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let long = "1".repeat(30);
        for (variable, value) in [
            ("PORT", "-1"),
            ("PORT", "0"),
            ("PORT", "65536"),
            ("PORT", "http"),
            ("SSL_PORT", "-1"),
            ("HOSTS_ANNOTATION", "..."),
            ("PATHS_ANNOTATION", "a b"),
            ("ORG_LABEL", "a=b"),
            ("ENV_LABEL", "-"),
            ("APP_NAME_LABEL", "/x"),
            ("APP_REV_LABEL", "$"),
            ("ROUTABLE_LABEL_SELECTOR", "$$$"),
            ("ROUTABLE_LABEL_SELECTOR", "a in"),
            ("API_KEY_SECRET_NAME", "Routing!"),
            ("API_KEY_SECRET_FIELD", "a/b"),
            ("API_KEY_HEADER", "X Key"),
            ("DEFAULT_LOCATION_RETURN", "-1"),
            ("DEFAULT_LOCATION_RETURN", "99"),
            ("DEFAULT_LOCATION_RETURN", "100"),
            ("DEFAULT_LOCATION_RETURN", "600"),
            ("DEFAULT_LOCATION_RETURN", &long),
            ("DEFAULT_LOCATION_RETURN", "example.net"),
            ("DEFAULT_LOCATION_RETURN", "ftp://example.net"),
            ("DEFAULT_LOCATION_RETURN", "http://"),
            ("DEFAULT_LOCATION_RETURN", "http://a:b/"),
            ("DEFAULT_LOCATION_RETURN", "http://user@a/"),
            ("DEFAULT_LOCATION_RETURN", "http://a/?b"),
            ("DEFAULT_LOCATION_RETURN", "http://::1/"),
            ("NGINX_ENABLE_HEALTH_CHECKS", "yes"),
            ("ENABLE_NGINX_UPSTREAM_CHECK", "on"),
            ("NGINX_MAX_CLIENT_BODY_SIZE", "-1"),
            ("NGINX_MAX_CLIENT_BODY_SIZE", "34x"),
            ("NGINX_MAX_CLIENT_BODY_SIZE", "m"),
            ("NGINX_MAX_CLIENT_BODY_SIZE", "99999999999g"),
            ("NGINX_STATUS_PATH", "status"),
            ("NGINX_STATUS_PATH", "/<>asd"),
        ] {
            let errors = read(&[(variable, value)]).unwrap_err();
            let [error] = &*errors else { panic!("{variable}={value}: {errors:?}") };
            let shown = value.chars().take(20).collect::<String>();
            assert!(error.contains(variable) && error.contains(&shown), "{error}");
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn all_mistakes_are_said_at_once() {
        let wrong = [("PORT", "0"), ("SSL_PORT", "x"), ("SSL_CERT", "/a"), ("ORG_LABEL", " ")];
        assert_eq!(read(&wrong).unwrap_err().len(), 4);
        let lone_key = read(&[("SSL_KEY", "/a")]).unwrap_err();
        assert!(lone_key[0].contains("SSL_CERT: error: is missing"), "{lone_key:?}");
        let both = [("NGINX_ENABLE_HEALTH_CHECKS", "1"), ("ENABLE_NGINX_UPSTREAM_CHECK", "0")];
        assert!(read(&both).unwrap_err()[0].contains("contradicts"));
    }

    #[test]
    fn both_names_of_health_checks_work() {
        for name in ["NGINX_ENABLE_HEALTH_CHECKS", "ENABLE_NGINX_UPSTREAM_CHECK"] {
            assert!(read(&[(name, "true")]).unwrap().health_checks);
            assert!(!read(&[(name, "0")]).unwrap().health_checks);
        }
    }

    #[test]
    fn sizes_are_nginx_s() {
        for (text, bytes) in [
            ("0", None),
            ("0m", None),
            ("1000", Some(1000)),
            ("8k", Some(8192)),
            ("34M", Some(34 << 20)),
            ("34mb", Some(34 << 20)),
            ("1g", Some(1 << 30)),
        ] {
            let options = read(&[("NGINX_MAX_CLIENT_BODY_SIZE", text)]).unwrap();
            assert_eq!(options.request_body_max, bytes, "{text}");
        }
    }

    #[test]
    fn the_default_return_is_a_code_or_a_uri() {
        let named = |host: &str, port| Target::Named(HostName::parse(host).unwrap(), port);
        let forward = |tls, target, path: Option<&str>| DefaultReturn::Forward {
            tls,
            target,
            path: path.map(Arc::from),
        };
        for (text, expected) in [
            ("404", DefaultReturn::Status(404)),
            ("200", DefaultReturn::Status(200)),
            ("444", DefaultReturn::Close),
            ("http://errors", forward(false, named("errors", 80), None)),
            ("http://errors/", forward(false, named("errors", 80), None)),
            ("HTTPS://Errors:8443/a", forward(true, named("errors", 8443), Some("/a"))),
            (
                "http://10.0.0.1:81/",
                forward(false, Target::Address(([10, 0, 0, 1], 81).into()), None),
            ),
            (
                "http://[::1]/x",
                forward(false, Target::Address("[::1]:80".parse().unwrap()), Some("/x")),
            ),
        ] {
            let options = read(&[("DEFAULT_LOCATION_RETURN", text)]).unwrap();
            assert_eq!(options.default_return, expected, "{text}");
        }
    }
}
