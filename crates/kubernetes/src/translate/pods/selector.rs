//! Label selectors, as `kubectl get -l` takes them: checked before the API is asked, and applied to
//! manifests.
//!
//! Pure. Must not know whose labels they are. The grammar is that of Kubernetes (`k8s.io/apimachinery`
//! documents it with the labels): requirements separated by commas, all of which must hold.

use std::collections::BTreeMap;
use std::fmt;

use super::names::{is_label_name, is_label_value};

/// The longest selector that is taken.
const SELECTOR_BYTES_MAX: usize = 4096;

/// Which objects are taken, by their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    label: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

/// A text that is no label selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a label selector: {reason}")]
pub struct InvalidSelector {
    /// What is wrong with it.
    pub reason: String,
}

impl LabelSelector {
    /// `name`, `!name`, `name=value`, `name==value`, `name!=value`, `name in (a,b)`, `name notin (a,b)`,
    /// `name>1`, `name<1`, separated by commas. At most 4096 bytes.
    ///
    /// # Errors
    /// [`InvalidSelector`] where it is none of that, or where a name or value is none that a label can have.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > SELECTOR_BYTES_MAX {
            return fail(format!("longer than {SELECTOR_BYTES_MAX} bytes"));
        }
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                Token::End => break,
                Token::Symbol(",") => {}
                other => return fail(format!("{other} where a comma or the end should be")),
            }
        }
        Ok(Self { text: text.trim().to_owned(), requirements })
    }

    /// As it was given: what the API is asked with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an object with these labels is taken.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |requirement: &Requirement| {
            requirement.holds(labels.get(&requirement.label).map(String::as_str))
        };
        self.requirements.iter().all(holds)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn fail<T>(reason: impl Into<String>) -> Result<T, InvalidSelector> {
    Err(InvalidSelector { reason: reason.into() })
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, InvalidSelector> {
    let (absent, first) = match tokens.next() {
        Token::Symbol("!") => (true, tokens.next()),
        other => (false, other),
    };
    let Token::Word(label) = first else {
        return fail(format!("{first} where the name of a label should be"));
    };
    if !is_label_name(label) {
        return fail(format!("{label:?} cannot be the name of a label"));
    }
    let test = match (absent, tokens.peek()) {
        (true, _) => Test::Absent,
        (false, Token::End | Token::Symbol(",")) => Test::Exists,
        (false, _) => test(tokens)?,
    };
    Ok(Requirement { label: label.to_owned(), test })
}

fn test(tokens: &mut Tokens<'_>) -> Result<Test, InvalidSelector> {
    match tokens.next() {
        Token::Symbol("=" | "==") => Ok(Test::In(vec![value(tokens)?])),
        Token::Symbol("!=") => Ok(Test::NotIn(vec![value(tokens)?])),
        Token::Symbol(">") => Ok(Test::Above(number(tokens)?)),
        Token::Symbol("<") => Ok(Test::Below(number(tokens)?)),
        Token::Word("in") => Ok(Test::In(values(tokens)?)),
        Token::Word("notin") => Ok(Test::NotIn(values(tokens)?)),
        other => fail(format!("{other} where =, !=, in, notin, < or > should be")),
    }
}

/// A value, which is empty where the requirement ends.
fn value(tokens: &mut Tokens<'_>) -> Result<String, InvalidSelector> {
    let text = match tokens.peek() {
        Token::Word(text) => {
            tokens.next();
            text
        }
        _ => "",
    };
    if is_label_value(text) {
        Ok(text.to_owned())
    } else {
        fail(format!("{text:?} cannot be the value of a label"))
    }
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, InvalidSelector> {
    let text = value(tokens)?;
    text.parse().or_else(|_| fail(format!("{text:?} is no whole number")))
}

fn values(tokens: &mut Tokens<'_>) -> Result<Vec<String>, InvalidSelector> {
    match tokens.next() {
        Token::Symbol("(") => {}
        other => return fail(format!("{other} where ( should be")),
    }
    let mut values = vec![value(tokens)?];
    loop {
        match tokens.next() {
            Token::Symbol(",") => values.push(value(tokens)?),
            Token::Symbol(")") => return Ok(values),
            other => return fail(format!("{other} where a comma or ) should be")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Symbol(&'t str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Symbol(text) => write!(f, "{text:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Tokens<'t> {
    fn peek(&self) -> Token<'t> {
        Tokens { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'t> {
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];
        let text = self.rest.trim_start();
        if text.is_empty() {
            self.rest = text;
            return Token::End;
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol)) {
            self.rest = &text[symbol.len()..];
            return Token::Symbol(symbol);
        }
        let ends = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
        let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        self.rest = rest;
        Token::Word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_take_what_kubernetes_takes() {
        // The object has the labels a=1, b=x and e (empty).
        let labels = [("a", "1"), ("b", "x"), ("example.com/b", "x"), ("e", "")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (text, taken) in [
            ("a=1", true),
            ("a==1", true),
            (" a = 1 ", true),
            ("a=2", false),
            ("a", true),
            ("c", false),
            ("!c", true),
            ("! a", false),
            ("a!=2", true),
            ("c!=2", true),
            ("a!=1", false),
            ("b in (x,y)", true),
            ("b in(y)", false),
            ("b notin (y, z)", true),
            ("c notin (y)", true),
            ("b notin (x)", false),
            ("e=", true),
            ("e in (,z)", true),
            ("a>0", true),
            ("a<1", false),
            ("b>0", false),
            ("a=1,b=x", true),
            ("a=1,b=y", false),
            ("example.com/b=x", true),
            ("in", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&labels), taken, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let long = "a".repeat(SELECTOR_BYTES_MAX + 1);
        for text in [
            "",
            " ",
            ",",
            "a,",
            "=1",
            "a=1,,b",
            "a=b=c",
            "a in",
            "a in ()x",
            "a in (b",
            "a b",
            "a=-",
            "!",
            "!a=1",
            "a>x",
            "a/b/c",
            "$$$",
            "a=ä",
            "(a)",
            "a in (b c)",
            &long,
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
