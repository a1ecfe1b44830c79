//! The cases: what is sent, how the proxy is set up for it, and which proxies can be asked.
//! Pure data; it knows no process.

use super::peers::Proxy;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Case {
    /// 1 KiB replies on 64 keep-alive connections
    Plain,
    /// The same over TLS 1.3
    Tls,
    /// A new TLS 1.3 connection for every request
    TlsNew,
    /// HTTP/2 over TLS from the client, HTTP/1.1 to the upstream
    H2,
    /// 1 MiB replies
    Large,
    /// 10 host rules
    #[value(name = "rules-10")]
    Rules10,
    /// 1,000 host rules
    #[value(name = "rules-1000")]
    Rules1000,
    /// 100,000 host rules
    #[value(name = "rules-100000")]
    Rules100000,
    /// 10,000 idle keep-alive connections
    Idle,
    /// A new file of 10,000 rules under load (Cloverleaf only)
    Reload,
}

/// In the order in which they run.
pub(crate) const ALL: [Case; 10] = [
    Case::Plain,
    Case::Tls,
    Case::TlsNew,
    Case::H2,
    Case::Large,
    Case::Rules10,
    Case::Rules1000,
    Case::Rules100000,
    Case::Idle,
    Case::Reload,
];

/// Rules in the file that is reloaded.
pub(crate) const RELOAD_RULES: usize = 10_000;

impl Case {
    /// The name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Plain => "plain",
            Case::Tls => "tls",
            Case::TlsNew => "tls-new",
            Case::H2 => "h2",
            Case::Large => "large",
            Case::Rules10 => "rules-10",
            Case::Rules1000 => "rules-1000",
            Case::Rules100000 => "rules-100000",
            Case::Idle => "idle",
            Case::Reload => "reload",
        }
    }

    /// A heading for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Case::Plain => "1 KiB replies, 64 keep-alive connections",
            Case::Tls => "The same over TLS 1.3",
            Case::TlsNew => "A new TLS 1.3 connection a request",
            Case::H2 => "HTTP/2 in, HTTP/1.1 out",
            Case::Large => "1 MiB replies",
            Case::Rules10 => "10 host rules",
            Case::Rules1000 => "1,000 host rules",
            Case::Rules100000 => "100,000 host rules",
            Case::Idle => "10,000 idle connections",
            Case::Reload => "A reload of 10,000 rules under load",
        }
    }

    /// Whether clients speak TLS.
    pub(crate) fn tls(self) -> bool {
        matches!(self, Case::Tls | Case::TlsNew | Case::H2)
    }

    /// How many host rules the proxy holds; none means one rule for everything.
    pub(crate) fn rules(self) -> usize {
        match self {
            Case::Rules10 => 10,
            Case::Rules1000 => 1000,
            Case::Rules100000 => 100_000,
            Case::Reload => RELOAD_RULES,
            _ => 0,
        }
    }

    /// What is asked for.
    pub(crate) fn path(self) -> &'static str {
        if self == Case::Large { "/1m" } else { "/1k" }
    }

    /// Why a proxy is not asked, if it is not.
    pub(crate) fn not_run(self, proxy: Proxy) -> Option<&'static str> {
        match (self, proxy) {
            (Case::Reload, Proxy::Cloverleaf) => None,
            (Case::Reload, _) => Some("only Cloverleaf's own target"),
            (Case::Rules100000, Proxy::Envoy) => {
                Some("virtual hosts of this number are beyond its use")
            }
            (Case::Rules1000 | Case::Rules100000, Proxy::Traefik | Proxy::Caddy) => {
                Some("it tries one rule after another")
            }
            _ => None,
        }
    }
}

/// The host name of rule number `index`.
pub(crate) fn rule_host(index: usize) -> String {
    format!("h{index}.bench.example")
}
