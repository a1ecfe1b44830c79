//! Asking a value of the tree for what its key takes, with a diagnostic where it is something else.
//!
//! Every getter returns `None` both for what is absent and for what is wrong; the report tells them apart,
//! and nothing is served from a file whose report has errors. Bounds and words come from the tables in
//! [`crate::keys`]. Knows nothing of what a key means. Start at [`Map`].

use std::path::PathBuf;
use std::time::Duration;

use model::{Diagnostic, HostName, Place};

use crate::context::Context;
use crate::keys::{Key, Kind, Section};
use crate::report::{KeyPath, Mark};
use crate::tree::{Data, Entry, Node};
use crate::{scalar, suggest};

/// A value, and the path of keys that leads to it.
#[derive(Clone, Copy)]
pub(crate) struct Value<'n, 'p> {
    pub(crate) node: &'n Node<'n>,
    pub(crate) path: KeyPath<'p>,
}

impl<'n, 'p> Value<'n, 'p> {
    /// An error at this value, without value and expectation.
    pub(crate) fn error(&self, cx: &Context<'_>, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.place(cx), self.path.to_string(), problem)
    }

    /// A warning at this value.
    pub(crate) fn warning(&self, cx: &Context<'_>, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.place(cx), self.path.to_string(), problem)
    }

    /// Where it stands.
    pub(crate) fn place(&self, cx: &Context<'_>) -> Place {
        cx.report.place(self.node.mark)
    }

    /// The text of a scalar and whether it is unquoted.
    fn scalar(&self) -> Option<(&'n str, bool)> {
        match &self.node.data {
            Data::Scalar { text, plain } => Some((text.as_ref(), *plain)),
            _ => None,
        }
    }

    /// Reports that this is not what its key takes.
    pub(crate) fn wrong(&self, cx: &mut Context<'_>, kind: Kind) {
        let expected = kind.text();
        let diagnostic = match &self.node.data {
            Data::Scalar { text, .. } if text.is_empty() => self.error(cx, "nothing is given here"),
            Data::Scalar { text, .. } => self.error(cx, "wrong value").value(text.as_ref()),
            Data::List(_) => self.error(cx, "a list is given here"),
            Data::Map(_) => self.error(cx, "a mapping is given here"),
        };
        cx.report.push(diagnostic.expected(expected));
    }

    /// A text, whatever it looks like: a name may well be `123`. A blank one counts as absent.
    pub(crate) fn text(&self, cx: &mut Context<'_>, kind: Kind) -> Option<&'n str> {
        match self.scalar() {
            Some((text, _)) => Some(text).filter(|t| !t.is_empty()),
            None => {
                self.wrong(cx, kind);
                None
            }
        }
    }

    /// One of the words of a choice; a blank text counts as absent.
    pub(crate) fn choice(&self, cx: &mut Context<'_>, kind: Kind) -> Option<&'static str> {
        let (Kind::Choice(words) | Kind::ChoiceOr(words, _)) = kind else { return None };
        let text = self.text(cx, kind)?;
        let word = words.iter().copied().find(|w| *w == text);
        if word.is_none() {
            self.wrong(cx, kind);
        }
        word
    }

    /// The keys of a mapping; unknown ones are reported.
    pub(crate) fn map<'v>(
        &'v self,
        cx: &mut Context<'_>,
        section: &'static Section,
    ) -> Option<Map<'n, 'v>>
    where
        'p: 'v,
    {
        let Data::Map(entries) = &self.node.data else {
            self.wrong(cx, Kind::Object(section));
            return None;
        };
        let map = Map { section, entries, path: &self.path, mark: self.node.mark };
        map.report_unknown(cx);
        Some(map)
    }

    /// What a function makes of each item of a list, without those that it makes nothing of.
    pub(crate) fn items<T>(
        &self,
        cx: &mut Context<'_>,
        kind: Kind,
        mut take: impl FnMut(&mut Context<'_>, usize, Value<'n, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Data::List(items) = &self.node.data else {
            self.wrong(cx, kind);
            return Vec::new();
        };
        let mut taken = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let item = Value { node, path: KeyPath::Item(&self.path, index) };
            taken.extend(take(cx, index, item));
        }
        taken
    }
}

/// A mapping whose keys a table declares.
#[derive(Clone, Copy)]
pub(crate) struct Map<'n, 'p> {
    section: &'static Section,
    entries: &'n [Entry<'n>],
    path: &'p KeyPath<'p>,
    mark: Mark,
}

impl<'n, 'p> Map<'n, 'p> {
    /// Where it begins.
    pub(crate) fn place(&self, cx: &Context<'_>) -> Place {
        cx.report.place(self.mark)
    }

    /// An error at the mapping as a whole.
    pub(crate) fn error(&self, cx: &Context<'_>, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.place(cx), self.path.to_string(), problem)
    }

    /// A warning at the mapping as a whole.
    pub(crate) fn warning(&self, cx: &Context<'_>, problem: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.place(cx), self.path.to_string(), problem)
    }

    fn declared(&self, name: &str) -> Option<&'static Key> {
        let key = self.section.key(name);
        debug_assert!(key.is_some(), "{name} is not in the table of {:?}", self.section.path);
        #[cfg(test)]
        asked::note(self.section, name);
        key
    }

    /// The value of a key, unless it is absent or stands for nothing.
    pub(crate) fn get(&self, name: &'static str) -> Option<Value<'n, 'p>> {
        let entry = self.entries.iter().find(|e| e.key == name);
        // Looking through the table for what is not there anyway is for tests.
        if cfg!(test) || entry.is_some() {
            self.declared(name)?;
        }
        let entry = entry?;
        (!entry.value.is_null())
            .then_some(Value { node: &entry.value, path: KeyPath::Key(self.path, name) })
    }

    /// As [`Self::get`] for a key that locks something: blank is an error there, because a lock that was left
    /// out by mistake must not open the door.
    pub(crate) fn lock(&self, cx: &mut Context<'_>, name: &'static str) -> Option<Value<'n, 'p>> {
        let found = self.get(name);
        let blank = self.entries.iter().find(|e| e.key == name).filter(|_| found.is_none());
        if let (Some(entry), Some(key)) = (blank, self.section.key(name)) {
            Value { node: &entry.value, path: KeyPath::Key(self.path, name) }.wrong(cx, key.kind);
        }
        found
    }

    /// The value of a key with the kind that the table gives it.
    fn with_kind(&self, name: &'static str) -> Option<(Value<'n, 'p>, Kind)> {
        Some((self.get(name)?, self.section.key(name)?.kind))
    }

    /// Reports that a key is missing.
    pub(crate) fn missing(&self, cx: &mut Context<'_>, name: &'static str) {
        let Some(key) = self.section.key(name) else { return };
        let parent = self.path.to_string();
        let dot = if parent.is_empty() { "" } else { "." };
        let diagnostic =
            Diagnostic::error(self.place(cx), format!("{parent}{dot}{name}"), "missing");
        cx.report.push(diagnostic.expected(key.kind.text()));
    }

    /// A text; a blank one counts as absent.
    pub(crate) fn text(&self, cx: &mut Context<'_>, name: &'static str) -> Option<&'n str> {
        let (value, kind) = self.with_kind(name)?;
        value.text(cx, kind)
    }

    /// A text that must be there.
    pub(crate) fn required(&self, cx: &mut Context<'_>, name: &'static str) -> Option<&'n str> {
        let errors_before = cx.report.errors();
        let text = self.text(cx, name);
        if text.is_none() && cx.report.errors() == errors_before {
            self.missing(cx, name);
        }
        text
    }

    /// A truth.
    pub(crate) fn boolean(&self, cx: &mut Context<'_>, name: &'static str) -> Option<bool> {
        let (value, kind) = self.with_kind(name)?;
        let found = value.scalar().and_then(|(text, plain)| scalar::boolean(text, plain));
        if found.is_none() {
            value.wrong(cx, kind);
        }
        found
    }

    /// An integer that the table allows.
    pub(crate) fn integer(&self, cx: &mut Context<'_>, name: &'static str) -> Option<u64> {
        let (value, kind) = self.with_kind(name)?;
        let allows = |number: u64| match kind {
            Kind::Integer(min, max) => (min..=max).contains(&number),
            Kind::Port => number <= u64::from(u16::MAX),
            Kind::Number(numbers) => numbers.contains(&number),
            _ => false,
        };
        let Some((text, plain)) = value.scalar() else {
            value.wrong(cx, kind);
            return None;
        };
        let number = scalar::integer(text).and_then(|n| u64::try_from(n).ok());
        let problem = match number {
            Some(n) if plain && allows(n) => return Some(n),
            Some(_) if !plain => "a quoted text where a number is needed",
            _ if !plain => "not a number",
            Some(_) if matches!(kind, Kind::Number(_)) => "not one of those that there are",
            Some(_) => "out of bounds",
            None if scalar::integer(text).is_some() => "out of bounds",
            None => "not a whole number",
        };
        let diagnostic = value.error(cx, problem).value(text).expected(kind.text());
        cx.report.push(diagnostic);
        None
    }

    /// A port; absent and 0 are the default.
    pub(crate) fn port(&self, cx: &mut Context<'_>, name: &'static str, default: u16) -> u16 {
        match self.integer(cx, name) {
            None | Some(0) => default,
            Some(port) => u16::try_from(port).unwrap_or(default),
        }
    }

    /// A duration, zero only where the table allows it.
    pub(crate) fn duration(&self, cx: &mut Context<'_>, name: &'static str) -> Option<Duration> {
        let (value, kind) = self.with_kind(name)?;
        let found = value.scalar().and_then(|(text, _)| scalar::duration(text));
        let zero = matches!(kind, Kind::Duration { zero: true });
        let found = found.filter(|d| zero || !d.is_zero());
        if found.is_none() {
            value.wrong(cx, kind);
        }
        found
    }

    /// One of the words of the table; a blank text counts as absent.
    pub(crate) fn choice(&self, cx: &mut Context<'_>, name: &'static str) -> Option<&'static str> {
        let (value, kind) = self.with_kind(name)?;
        value.choice(cx, kind)
    }

    /// A host name or IP literal.
    pub(crate) fn host(&self, cx: &mut Context<'_>, name: &'static str) -> Option<HostName> {
        let (value, kind) = self.with_kind(name)?;
        let text = value.text(cx, kind)?;
        match HostName::parse(text) {
            Ok(host) => Some(host),
            Err(_) => {
                value.wrong(cx, kind);
                None
            }
        }
    }

    /// What a function of [`scalar`] makes of a text.
    pub(crate) fn parsed<T>(
        &self,
        cx: &mut Context<'_>,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (value, kind) = self.with_kind(name)?;
        let parsed = parse(value.text(cx, kind)?);
        if parsed.is_none() {
            value.wrong(cx, kind);
        }
        parsed
    }

    /// The path of a file, beginning at the configuration file's directory.
    pub(crate) fn file(&self, cx: &mut Context<'_>, name: &'static str) -> Option<PathBuf> {
        let text = self.text(cx, name)?;
        Some(cx.base_dir.join(text))
    }

    /// A list; see [`Value::items`].
    pub(crate) fn list<T>(
        &self,
        cx: &mut Context<'_>,
        name: &'static str,
        take: impl FnMut(&mut Context<'_>, usize, Value<'n, '_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (value, kind) = self.with_kind(name)?;
        Some(value.items(cx, kind, take))
    }

    fn report_unknown(&self, cx: &mut Context<'_>) {
        for entry in self.entries {
            if self.section.key(&entry.key).is_some() {
                continue;
            }
            // Looking for a similar name is the one diagnostic that costs something.
            if !cx.report.keeps_warnings() {
                cx.report.skip_warning();
                continue;
            }
            let path = KeyPath::Key(self.path, &entry.key).to_string();
            let names = self.section.keys.iter().map(|key| key.name);
            let problem = match suggest::nearest(&entry.key, names) {
                Some(name) => format!("unknown key, ignored; did you mean {name}?"),
                None => "unknown key, ignored".into(),
            };
            let place = cx.report.place(entry.mark);
            cx.report.push(Diagnostic::warning(place, path, problem));
        }
    }
}

/// Which keys the decoder asked for: a test compares them with the tables.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use crate::keys::Section;

    thread_local! {
        static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Remembers one.
    pub(crate) fn note(section: &Section, name: &str) {
        let path = format!("{}.{name}", section.path);
        ASKED.with_borrow_mut(|asked| asked.insert(path));
    }

    /// All of this thread.
    pub(crate) fn all() -> BTreeSet<String> {
        ASKED.with_borrow(Clone::clone)
    }
}
