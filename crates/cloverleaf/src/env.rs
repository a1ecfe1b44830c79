//! The environment, read in this one place: the variables of `NanoProxy` and of the 30x dispatcher under their
//! names, and what Kubernetes says of a pod (the downward API).
//!
//! Only reads and checks; what they mean is [`crate::source`]'s.

use std::path::PathBuf;
use std::time::Duration;

/// What the environment says. An empty variable says nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `CONF_FILE`: the file.
    pub(crate) conf_file: Option<PathBuf>,
    /// `TIMEOUT`: seconds.
    pub(crate) timeout: Option<Duration>,
    /// `PORT`
    pub(crate) port: Option<u16>,
    /// `DEBUG`: anything but empty.
    pub(crate) debug: bool,
    /// `CERT_PATH`: a directory with cert.pem and key.pem.
    pub(crate) cert_path: Option<PathBuf>,
    /// `TLS_SKIP_VERIFY`: anything but empty.
    pub(crate) tls_skip_verify: bool,
    /// `CONFIG_B64`: the file's content.
    pub(crate) config_b64: Option<String>,
    /// `HTTPS_PORT`
    pub(crate) https_port: Option<u16>,
    /// What a pod is told about itself.
    pub(crate) pod: Pod,
}

/// What a pod is told about itself, by the downward API and a deployment's manifest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// `POD_NAME`
    pub(crate) name: Option<String>,
    /// `POD_NAMESPACE`
    pub(crate) namespace: Option<String>,
    /// `POD_IP`
    pub(crate) ip: Option<String>,
    /// `HOST_IP`: its node's.
    pub(crate) host_ip: Option<String>,
    /// `NODE_NAME`
    pub(crate) node: Option<String>,
    /// `NODE_ZONE`: its node's (or its own) label `topology.kubernetes.io/zone`.
    pub(crate) zone: Option<String>,
}

/// A variable that cannot be used: its name, its value, what was expected. `CONFIG_B64` is not shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}: found {value:?}, expected {expected}")]
pub(crate) struct EnvironmentError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Environment {
    /// The process's.
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn of_process() -> Result<Self, EnvironmentError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let text = |name: &str| get(name).filter(|value| !value.is_empty());
        let port = |name: &'static str| {
            let read = text(name).map(|value| {
                value.parse().ok().filter(|port| *port > 0).ok_or(EnvironmentError {
                    name,
                    value,
                    expected: "a number from 1 to 65535",
                })
            });
            read.transpose()
        };
        Ok(Self {
            conf_file: text("CONF_FILE").map(PathBuf::from),
            timeout: text("TIMEOUT").map(|value| seconds("TIMEOUT", value)).transpose()?,
            port: port("PORT")?,
            debug: text("DEBUG").is_some(),
            cert_path: text("CERT_PATH").map(PathBuf::from),
            tls_skip_verify: text("TLS_SKIP_VERIFY").is_some(),
            config_b64: text("CONFIG_B64"),
            https_port: port("HTTPS_PORT")?,
            pod: Pod {
                name: text("POD_NAME"),
                namespace: text("POD_NAMESPACE"),
                ip: text("POD_IP"),
                host_ip: text("HOST_IP"),
                node: text("NODE_NAME"),
                zone: text("NODE_ZONE"),
            },
        })
    }
}

/// One of the process's variables, for those who check their own.
#[allow(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number of seconds, as `TIMEOUT` and `--timeout` have it.
pub(crate) fn seconds(name: &'static str, value: String) -> Result<Duration, EnvironmentError> {
    const DAY: f64 = 86_400.0;
    match value.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= DAY => Ok(Duration::from_secs_f64(number)),
        _ => Err(EnvironmentError {
            name,
            value,
            expected: "a number of seconds above 0, at most 86400",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_variables_of_nanoproxy_are_read() {
        let read = Environment::read(|name| {
            Some(
                match name {
                    "CONF_FILE" => "/conf/config.yaml",
                    "TIMEOUT" => "2.5",
                    "PORT" => "9000",
                    "CERT_PATH" => "/certs",
                    "CONFIG_B64" => "eA==",
                    "DEBUG" | "TLS_SKIP_VERIFY" => "0",
                    _ => return None,
                }
                .to_owned(),
            )
        });
        let expected = Environment {
            conf_file: Some("/conf/config.yaml".into()),
            timeout: Some(Duration::from_millis(2500)),
            port: Some(9000),
            debug: true,
            cert_path: Some("/certs".into()),
            tls_skip_verify: true,
            config_b64: Some("eA==".into()),
            ..Environment::default()
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(Environment::read(|_| Some(String::new())), Ok(Environment::default()));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value) in [
            ("PORT", "http"),
            ("PORT", "0"),
            ("PORT", "70000"),
            ("TIMEOUT", "5s"),
            ("TIMEOUT", "0"),
        ] {
            let error = Environment::read(|n| (n == name).then(|| value.to_owned())).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(name) && text.contains(value) && text.contains("expected"),
                "{text}"
            );
        }
    }
}
