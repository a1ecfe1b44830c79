//! What an agent says that it is for: `host=a&ipv4=1.2.3.4&default-route=true`, in the form of a URL's query.
//!
//! Must not know where it stood, nor what a server makes of it.

use std::fmt;

use percent_encoding::percent_decode_str;

/// The longest text.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// An agent's identifiers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// IPv4 addresses as they are written.
    pub ipv4: Vec<String>,
    /// IPv6 addresses as they are written, without brackets.
    pub ipv6: Vec<String>,
    /// Host names.
    pub host: Vec<String>,
    /// Networks. Nothing is chosen by them.
    pub cidr: Vec<String>,
    /// Whether it takes what nobody else is for.
    pub default_route: bool,
}

/// Why a text names no identifiers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifiersError {
    /// A key that does not exist.
    #[error("unknown key {0:?}, expected ipv4, ipv6, host, cidr or default-route")]
    UnknownKey(String),
    /// Not the form of a URL's query.
    #[error("{0:?} is not of the form key=value&key=value")]
    Form(String),
    /// Too long.
    #[error("{0} bytes are too many, expected at most {TEXT_BYTES_MAX}")]
    Long(usize),
}

impl Identifiers {
    /// Reads a text and insists that every key is known, as an agent's flag does.
    ///
    /// # Errors
    /// [`IdentifiersError`], with the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, IdentifiersError> {
        let mut found = Self::default();
        for (key, value) in pairs(text)? {
            if !found.add(&key, value) {
                return Err(IdentifiersError::UnknownKey(key));
            }
        }
        Ok(found)
    }

    /// Reads a text and passes over keys that are not known, as a server does.
    ///
    /// # Errors
    /// [`IdentifiersError`], where the form is not kept.
    pub fn parse_lenient(text: &str) -> Result<Self, IdentifiersError> {
        let mut found = Self::default();
        for (key, value) in pairs(text)? {
            found.add(&key, value);
        }
        Ok(found)
    }

    fn add(&mut self, key: &str, value: String) -> bool {
        match key {
            "ipv4" => self.ipv4.push(value),
            "ipv6" => self.ipv6.push(value),
            "host" => self.host.push(value),
            "cidr" => self.cidr.push(value),
            // As the original has it: any other value is no.
            "default-route" => self.default_route = value == "true",
            _ => return false,
        }
        true
    }

    /// Whether it is for this host: a name or an address, compared as text.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        [&self.host, &self.ipv4, &self.ipv6].into_iter().flatten().any(|own| own == host)
    }
}

impl fmt::Display for Identifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("ipv4", &self.ipv4),
            ("ipv6", &self.ipv6),
            ("host", &self.host),
            ("cidr", &self.cidr),
        ];
        let mut pairs: Vec<String> = Vec::new();
        for (key, values) in lists {
            pairs.extend(values.iter().map(|value| format!("{key}={value}")));
        }
        if self.default_route {
            pairs.push("default-route=true".to_owned());
        }
        f.write_str(&pairs.join("&"))
    }
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, IdentifiersError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(IdentifiersError::Long(text.len()));
    }
    let pair = |part: &str| {
        let form = || IdentifiersError::Form(part.to_owned());
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if part.contains(';') {
            return Err(form());
        }
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_decode_str(&text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| form())
        };
        Ok((decode(key)?, decode(value)?))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_as_a_query() {
        let text = "ipv4=1.2.3.4&host=a&host=b%2Ec&ipv6=::1&cidr=10.0.0.0%2F8&default-route=true";
        let found = Identifiers::parse(text).unwrap();
        assert_eq!(found.host, ["a", "b.c"]);
        assert_eq!((found.cidr[0].as_str(), found.default_route), ("10.0.0.0/8", true));
        for (host, expected) in
            [("1.2.3.4", true), ("::1", true), ("b.c", true), ("10.0.0.1", false), ("", false)]
        {
            assert_eq!(found.names(host), expected, "{host}");
        }
        assert_eq!(Identifiers::parse(&found.to_string()).unwrap(), found);
        assert_eq!(Identifiers::parse("").unwrap(), Identifiers::default());
    }

    #[test]
    fn what_is_not_known_is_an_error_of_the_flag_and_passed_over_by_the_server() {
        let unknown = Identifiers::parse("host=a&zone=b").unwrap_err();
        assert_eq!(unknown, IdentifiersError::UnknownKey("zone".into()));
        assert_eq!(Identifiers::parse_lenient("host=a&zone=b").unwrap().host, ["a"]);
        for text in ["host=%ff", "host=a;b", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(Identifiers::parse_lenient(text).is_err());
        }
    }
}
