//! Every key of the file, declared once: name, type, default, meaning, example.
//!
//! The decoder asks these tables which keys exist and which bounds they have, the reference page and the
//! JSON schema are written from them, and every example is parsed in a test. The tables know nothing of
//! decoding. A new key begins here; the tests then say what else it needs. Start at [`SECTIONS`].

mod agents;
mod listeners;
mod mesh;
mod rules;
mod settings;
mod top;
mod tunnels;
mod upstreams;

pub(crate) use agents::{AGENT_POLICY, AGENT_RULE};
pub(crate) use listeners::{
    CERTIFICATE, CLIENT_CERTIFICATES, HTTP_VERSIONS, LISTENER, LISTENER_TLS,
};
pub(crate) use mesh::{MESH, MESH_PORT};
pub(crate) use rules::{API_KEY, REDIRECT, RULE, RULE_UPSTREAM};
pub(crate) use settings::{ACCESS_LOG, ADMIN, ECHO, LIMITS, SHUTDOWN, TIMEOUTS};
pub(crate) use top::TOP;
pub(crate) use tunnels::{TUNNEL, TUNNEL_TLS, VIA};
pub(crate) use upstreams::{ENDPOINT, HEALTH_CHECK, UPSTREAM, UPSTREAM_TLS};

/// All sections, in the order of the reference.
pub(crate) static SECTIONS: &[&Section] = &[
    &TOP,
    &UPSTREAM,
    &ENDPOINT,
    &UPSTREAM_TLS,
    &HEALTH_CHECK,
    &RULE,
    &RULE_UPSTREAM,
    &REDIRECT,
    &API_KEY,
    &LISTENER,
    &LISTENER_TLS,
    &CERTIFICATE,
    &CLIENT_CERTIFICATES,
    &TIMEOUTS,
    &LIMITS,
    &ACCESS_LOG,
    &SHUTDOWN,
    &ADMIN,
    &VIA,
    &TUNNEL,
    &TUNNEL_TLS,
    &MESH,
    &MESH_PORT,
    &ECHO,
];

/// A kind of mapping and the keys that it may have.
#[derive(Debug)]
pub(crate) struct Section {
    /// Where it stands, as `listeners[].tls`; empty for the file itself.
    pub(crate) path: &'static str,
    /// Its name in the JSON schema.
    pub(crate) id: &'static str,
    /// What it is, in one or two sentences.
    pub(crate) doc: &'static str,
    /// In the order of the reference.
    pub(crate) keys: &'static [Key],
}

impl Section {
    /// The key of that name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What holds without it, as a person reads it.
    pub(crate) default: &'static str,
    /// What it does, in whole sentences.
    pub(crate) doc: &'static str,
    /// A file, or the part of one that matters, in which it is used.
    pub(crate) example: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text that is not empty.
    Text,
    /// A path of a file, relative to the configuration file's directory.
    File,
    /// A path of a URL.
    UrlPath,
    /// A host name or an IP literal.
    Host,
    /// A host name, an IP literal or a wildcard.
    HostPattern,
    /// `true` or `false`.
    Boolean,
    /// A port; 0 stands for the default.
    Port,
    /// An integer within these bounds, both included.
    Integer(u64, u64),
    /// One of these integers, in rising order.
    Number(&'static [u64]),
    /// A time span; zero is allowed only where it says so.
    Duration { zero: bool },
    /// A number of bytes above zero, with or without a unit.
    Size,
    /// A status of an answer, or a range of them.
    Statuses,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// As [`Self::Choice`], but other words only make a warning.
    LenientChoice(&'static [&'static str]),
    /// `host:port`
    HostPort,
    /// `ip:port`, `:port` or a port.
    ListenAddress,
    /// `ip:port`
    SocketAddress,
    /// `ip:port` or `off`.
    SocketAddressOrOff,
    /// `host:port`, or `unix:` and a path.
    TunnelServers,
    /// What a cluster is called.
    Cluster,
    /// A network or an address.
    Network,
    /// One of these words, or a mapping with the keys of that section.
    ChoiceOr(&'static [&'static str], &'static Section),
    /// A name, or a mapping with the keys of that section.
    TextOr(&'static Section),
    /// A mapping with the keys of that section.
    Object(&'static Section),
    /// A list of these.
    List(&'static Kind),
}

impl Kind {
    /// The type as a person reads it in the reference and in a diagnostic (`expected …`).
    pub(crate) fn text(self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::File => "the path of a file".into(),
            Self::UrlPath => "a URL path".into(),
            Self::Host => "a host name or an IP address, without a port".into(),
            Self::HostPattern => "a host name, `*.name` or `**.name`, without a port".into(),
            Self::Boolean => "true or false, unquoted".into(),
            Self::Port => "an unquoted number from 1 to 65535".into(),
            Self::Integer(min, max) => format!("an unquoted number from {min} to {max}"),
            Self::Number(numbers) => {
                let words: Vec<_> = numbers.iter().map(u64::to_string).collect();
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                format!("an unquoted {}", one_of(&words))
            }
            Self::Duration { zero: false } => {
                "a duration above zero, as 500ms, 5s, 2m or 1h".into()
            }
            Self::Duration { zero: true } => "a duration, as 0s, 500ms, 5s, 2m or 1h".into(),
            Self::Size => "a size above zero, as 4096, 512KiB, 10MiB or 1GiB".into(),
            Self::Statuses => "a status or a range from 200 to 599, as 200 or 200-399".into(),
            Self::Choice(words) | Self::LenientChoice(words) => one_of(words),
            Self::HostPort => "host:port, with a port from 1 to 65535".into(),
            Self::ListenAddress => "ip:port, :port or a port".into(),
            Self::SocketAddress => "ip:port, as 127.0.0.1:9090 or [::1]:9090".into(),
            Self::SocketAddressOrOff => "ip:port, as 127.0.0.1:9180, or off".into(),
            Self::TunnelServers => model::TunnelServers::EXPECTED.into(),
            Self::Cluster => "a name of letters, digits, hyphens, dots and underscores".into(),
            Self::ChoiceOr(words, _) => format!("{} or a mapping", words.join(", ")),
            Self::TextOr(_) => "a name or a mapping".into(),
            Self::Network => "a network as 10.0.0.0/8, or an IP address".into(),
            Self::Object(_) => "a mapping".into(),
            Self::List(item) => match item {
                Self::Object(_) => "a list of mappings".into(),
                Self::Choice(words) => format!("a list of {}", one_of(words)),
                Self::HostPattern => "a list of host names, `*.name` or `**.name`".into(),
                Self::Network => "a list of networks (10.0.0.0/8) or IP addresses".into(),
                _ => "a list of texts".into(),
            },
        }
    }
}

/// `a, b or c`
fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_documented_once() {
        let mut paths = BTreeSet::new();
        for section in SECTIONS {
            assert!(paths.insert(section.path), "{} twice", section.path);
            assert!(section.doc.ends_with('.'), "{}", section.path);
            let mut names = BTreeSet::new();
            for key in section.keys {
                let whole = format!("{}.{}", section.path, key.name);
                assert!(names.insert(key.name), "{whole} twice");
                assert!(key.doc.ends_with('.') && !key.default.is_empty(), "{whole}");
                assert!(
                    key.example.contains(&format!("{}:", key.name)),
                    "{whole}: not in its example"
                );
            }
        }
    }

    #[test]
    fn every_section_is_reachable_from_the_top() {
        fn walk(kind: Kind, seen: &mut BTreeSet<&'static str>) {
            match kind {
                Kind::List(item) => walk(*item, seen),
                Kind::Object(section) | Kind::ChoiceOr(_, section) | Kind::TextOr(section) => {
                    seen.insert(section.path);
                    section.keys.iter().for_each(|key| walk(key.kind, seen));
                }
                _ => {}
            }
        }
        let mut seen = BTreeSet::new();
        walk(Kind::Object(&TOP), &mut seen);
        assert_eq!(seen, SECTIONS.iter().map(|s| s.path).collect());
    }
}
