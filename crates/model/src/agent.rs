//! Which agents of a tunnel may claim what, as a file says it. Plain data and the rules of matching, no IO.

use ipnet::IpNet;

/// What agents may claim. An agent that no rule means may not come at all; one that several mean may claim what any of
/// them allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentPolicy {
    /// In the order of the file.
    pub rules: Vec<AgentRule>,
}

/// Whom a rule means, and what it allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentRule {
    /// Whom it means.
    pub who: AgentWho,
    /// The names that the agent may call itself; `None`: any.
    pub agent_ids: Option<Vec<TextPattern>>,
    /// Hosts that it may be for.
    pub hosts: Vec<TextPattern>,
    /// Networks of the IPv4 addresses that it may be for.
    pub ipv4: Vec<IpNet>,
    /// The same of IPv6.
    pub ipv6: Vec<IpNet>,
    /// Networks whose parts it may be for.
    pub cidr: Vec<IpNet>,
    /// It may take what nobody else is for.
    pub default_route: bool,
}

/// Whom a rule means: all that is given must hold, and something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentWho {
    /// A common name of the certificate's subject.
    pub common_name: Option<String>,
    /// A DNS name among the certificate's alternative names.
    pub dns_name: Option<String>,
    /// A URI among them.
    pub uri: Option<String>,
    /// `namespace/name` of the service account whose token it showed.
    pub service_account: Option<String>,
}

/// A text, `*` for any, or `*.name` for whatever stands before a dot and the name. With regard to case, as identifiers
/// are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPattern {
    /// Whatever it is.
    Any,
    /// What ends with this, which begins with a dot, and has something before it.
    Ending(String),
    /// This.
    Exactly(String),
}

impl TextPattern {
    /// Reads one. `None` for an empty text, and for a `*` anywhere but at the beginning, alone or before a dot.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let stars = text.matches('*').count();
        match text.strip_prefix('*') {
            Some("") => Some(Self::Any),
            Some(rest) if stars == 1 && rest.starts_with('.') && rest.len() > 1 => {
                Some(Self::Ending(rest.to_owned()))
            }
            None if stars == 0 && !text.is_empty() => Some(Self::Exactly(text.to_owned())),
            _ => None,
        }
    }

    /// Whether it is for this text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Ending(end) => text.len() > end.len() && text.ends_with(end.as_str()),
            Self::Exactly(exactly) => exactly == text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("one", "one", true),
            ("one", "One", false),
            ("one", "one.example", false),
            ("*.one", "a.one", true),
            ("*.one", "a.b.one", true),
            ("*.one", ".one", false),
            ("*.one", "one", false),
            ("*.one", "someone", false),
        ] {
            assert_eq!(
                TextPattern::parse(pattern).unwrap().matches(text),
                expected,
                "{pattern} {text}"
            );
        }
        for bad in ["", "a*", "*a", "*.", "*.*", "**", "a.*.b"] {
            assert_eq!(TextPattern::parse(bad), None, "{bad}");
        }
    }
}
