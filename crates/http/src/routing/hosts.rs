//! Values by host pattern, found by host: a lookup for the name and, only where there are wildcards, one
//! for each of its dots.

use model::HostPattern;
use rustc_hash::FxHashMap;

use super::names::Names;

/// A value for each of many host patterns.
#[derive(Debug)]
pub(super) struct HostTable<V> {
    exact: Names<V>,
    /// By what stands behind `*.`
    one_label: Names<V>,
    /// By what stands behind `**.`
    many_labels: Names<V>,
    any: Option<V>,
}

/// Numbers host patterns as they come, from 0, each once.
#[derive(Debug, Default)]
pub(super) struct PatternIds<'n> {
    exact: FxHashMap<&'n str, usize>,
    one_label: FxHashMap<&'n str, usize>,
    many_labels: FxHashMap<&'n str, usize>,
    any: Option<usize>,
    count: usize,
}

impl<'n> PatternIds<'n> {
    /// The number of a pattern.
    pub(super) fn id(&mut self, pattern: &'n HostPattern) -> usize {
        let new = self.count;
        let id = match pattern {
            HostPattern::Any => *self.any.get_or_insert(new),
            HostPattern::Exact(name) => *self.exact.entry(name.as_str()).or_insert(new),
            HostPattern::OneLabel(name) => *self.one_label.entry(name.as_str()).or_insert(new),
            HostPattern::ManyLabels(name) => *self.many_labels.entry(name.as_str()).or_insert(new),
        };
        self.count = self.count.max(id + 1);
        id
    }
}

impl<V: Copy + Default> HostTable<V> {
    /// With a value for each number.
    pub(super) fn new(ids: &PatternIds<'_>, value: impl Fn(usize) -> V) -> Self {
        let names = |map: &FxHashMap<&str, usize>| {
            Names::new(map.iter().map(|(&name, &id)| (name, value(id))))
        };
        Self {
            exact: names(&ids.exact),
            one_label: names(&ids.one_label),
            many_labels: names(&ids.many_labels),
            any: ids.any.map(&value),
        }
    }
}

impl<V> HostTable<V> {
    /// Asks about the value of each pattern that fits the host, the most specific first, until there is an
    /// answer.
    #[inline]
    pub(super) fn find_map<'t, B>(
        &'t self,
        host: &str,
        mut ask: impl FnMut(&'t V) -> Option<B>,
    ) -> Option<B> {
        if let Some(value) = self.exact.get(host)
            && let answer @ Some(_) = ask(value)
        {
            return answer;
        }
        if !(self.one_label.is_empty() && self.many_labels.is_empty())
            && let answer @ Some(_) = self.find_map_wild(host, &mut ask)
        {
            return answer;
        }
        self.any.as_ref().and_then(ask)
    }

    /// The wildcards, cut after cut, so that the longest name comes first.
    fn find_map_wild<'t, B>(
        &'t self,
        host: &str,
        ask: &mut impl FnMut(&'t V) -> Option<B>,
    ) -> Option<B> {
        for (cut, (at, _)) in host.match_indices('.').enumerate() {
            // An asterisk stands for something.
            if at == 0 {
                continue;
            }
            let name = &host[at + 1..];
            let one = if cut == 0 { self.one_label.get(name) } else { None };
            for value in one.into_iter().chain(self.many_labels.get(name)) {
                if let answer @ Some(_) = ask(value) {
                    return answer;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostName;

    fn pattern(text: &str) -> HostPattern {
        let name = |text: &str| HostName::parse(text).unwrap();
        match text.strip_prefix("**.") {
            _ if text == "*" => HostPattern::Any,
            Some(rest) => HostPattern::ManyLabels(name(rest)),
            None => match text.strip_prefix("*.") {
                Some(rest) => HostPattern::OneLabel(name(rest)),
                None => HostPattern::Exact(name(text)),
            },
        }
    }

    #[test]
    fn patterns_are_asked_from_the_most_specific_to_any() {
        let patterns =
            ["*", "**.c", "*.c", "**.b.c", "*.b.c", "**.a.b.c", "a.b.c", "*.a.b.c", "b.c"];
        let all = patterns.map(pattern);
        let mut ids = PatternIds::default();
        for (index, pattern) in all.iter().chain(&all).enumerate() {
            assert_eq!(ids.id(pattern), index % all.len());
        }
        let table = HostTable::new(&ids, |id| patterns[id]);
        let cases: [(&str, &[&str]); 8] = [
            ("a.b.c", &["a.b.c", "*.b.c", "**.b.c", "**.c", "*"]),
            ("x.a.b.c", &["*.a.b.c", "**.a.b.c", "**.b.c", "**.c", "*"]),
            ("y.x.a.b.c", &["**.a.b.c", "**.b.c", "**.c", "*"]),
            ("b.c", &["b.c", "*.c", "**.c", "*"]),
            ("c", &["*"]),
            (".c", &["*"]),
            (".b.c", &["**.c", "*"]),
            ("", &["*"]),
        ];
        for (host, wanted) in cases {
            let mut asked = Vec::new();
            let none = table.find_map(host, |&value| {
                asked.push(value);
                None::<()>
            });
            assert_eq!((none, asked.as_slice()), (None, wanted), "{host:?}");
            for text in wanted {
                assert!(pattern(text).matches(host), "{text} {host}");
            }
        }
    }
}
