//! YAML text to a small tree in which every value knows its line and column.
//!
//! Built from the parser's events with an explicit stack; bytes, depth and nodes (aliases expanded) are
//! bounded, so that no file can take more memory than the bounds allow. Knows YAML, but not what any key
//! means. A value is kept as text with its style: what it is (number, truth, nothing) is decided where it
//! is asked for, because a name may well be `123`. Start at [`read`].

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use model::{Diagnostic, Place};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::report::{Mark, Report};

/// Bytes of a file. A rule takes about 60, so this is about a million of them.
pub(crate) const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Lists and mappings inside each other. The deepest key that exists is at 6.
const DEPTH_MAX: usize = 64;
/// Values in a file, counted after aliases and merges have been written out. A rule has about 5.
const NODES_MAX: usize = 4_000_000;
/// Keys of a mapping from which on duplicates are looked up in a table instead of one by one.
const KEYS_COMPARED_ONE_BY_ONE_MAX: usize = 16;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node<'t> {
    pub(crate) mark: Mark,
    pub(crate) data: Data<'t>,
}

/// What a value is made of.
#[derive(Debug, Clone)]
pub(crate) enum Data<'t> {
    /// Text; `plain` if it was written without quotes, so that it may stand for a number, a truth or nothing.
    Scalar {
        text: Cow<'t, str>,
        plain: bool,
    },
    List(Vec<Node<'t>>),
    Map(Vec<Entry<'t>>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'t> {
    pub(crate) key: Cow<'t, str>,
    pub(crate) mark: Mark,
    pub(crate) value: Node<'t>,
}

impl Node<'_> {
    /// Whether it stands for nothing, as `key:` and `key: ~` do.
    pub(crate) fn is_null(&self) -> bool {
        match &self.data {
            Data::Scalar { text, plain: true } => {
                matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Reads one document. `None` if it cannot be read as YAML at all or goes beyond a bound; the reason is in
/// the report then. Mistakes that leave a tree (a key given twice) are reported and the tree is returned.
pub(crate) fn read<'t>(text: &'t str, report: &mut Report) -> Option<Node<'t>> {
    if text.len() > FILE_BYTES_MAX {
        let problem = format!("the file has more than {FILE_BYTES_MAX} bytes");
        report.push(Diagnostic::error(report.whole(), "", problem));
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder =
        Builder { report, frames: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(e) => {
                let mark = mark_of(*e.marker());
                let line =
                    text.lines().nth(mark.line.saturating_sub(1) as usize).unwrap_or_default();
                let place = builder.report.place(mark);
                let problem = format!("not YAML: {}", e.info());
                builder.report.push(Diagnostic::error(place, "", problem).value(line.trim()));
                return None;
            }
        };
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let place = builder.report.place(mark_of(span.start));
                let problem = "a second document begins here, but a configuration is one document";
                builder.report.push(Diagnostic::error(place, "", problem));
                return None;
            }
        }
        if let Err(diagnostic) = builder.take(event, span) {
            builder.report.push(*diagnostic);
            return None;
        }
    }
    builder.root
}

fn mark_of(marker: saphyr_parser::Marker) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// A list or mapping that is still open.
struct Frame<'t> {
    mark: Mark,
    /// The parser's number for its anchor; 0 is none.
    anchor: usize,
    /// Nodes there were before it, itself included.
    nodes_before: usize,
    open: Open<'t>,
}

enum Open<'t> {
    List(Vec<Node<'t>>),
    Map {
        entries: Vec<Entry<'t>>,
        /// The key whose value comes next.
        key: Option<(Cow<'t, str>, Mark)>,
        /// What `<<` brings in.
        merged: Vec<Node<'t>>,
    },
}

struct Builder<'t, 'r> {
    report: &'r mut Report,
    frames: Vec<Frame<'t>>,
    /// A complete value for each anchor, and how many nodes it has.
    anchors: HashMap<usize, (Node<'t>, usize)>,
    nodes: usize,
    root: Option<Node<'t>>,
}

type Step = Result<(), Box<Diagnostic>>;

impl<'t> Builder<'t, '_> {
    /// Takes the next event; an error ends the reading.
    fn take(&mut self, event: Event<'t>, span: Span) -> Step {
        let mark = mark_of(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, mark)?;
                let plain = is_plain(style, tag.as_deref());
                let node = Node { mark, data: Data::Scalar { text, plain } };
                self.remember(anchor, &node, 1, mark)?;
                self.place(node)
            }
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor) else {
                    return Err(self.error(mark, "an alias inside the very value that it repeats"));
                };
                let nodes = *nodes;
                // Counted before it is copied: a chain of aliases grows exponentially.
                let within = self.nodes.saturating_add(nodes) <= NODES_MAX;
                let node = within.then(|| Node { mark, data: node.data.clone() });
                self.count(nodes, mark)?;
                node.map_or(Ok(()), |node| self.place(node))
            }
            Event::SequenceStart(anchor, _) => self.open(mark, anchor, Open::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let open = Open::Map { entries: Vec::new(), key: None, merged: Vec::new() };
                self.open(mark, anchor, open)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn error(&self, mark: Mark, problem: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.report.place(mark), self.path(), problem))
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Step {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let problem = format!("more than {NODES_MAX} values, aliases written out");
        Err(Box::new(Diagnostic::error(self.report.place(mark), "", problem)))
    }

    fn open(&mut self, mark: Mark, anchor: usize, open: Open<'t>) -> Step {
        self.count(1, mark)?;
        if self.frames.len() >= DEPTH_MAX {
            let problem = format!("more than {DEPTH_MAX} lists and mappings inside each other");
            return Err(Box::new(Diagnostic::error(self.report.place(mark), "", problem)));
        }
        self.frames.push(Frame { mark, anchor, nodes_before: self.nodes - 1, open });
        Ok(())
    }

    fn close(&mut self) -> Step {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let data = match frame.open {
            Open::List(items) => Data::List(items),
            Open::Map { entries, merged, .. } => {
                let entries = self.merge(entries, merged)?;
                Data::Map(entries)
            }
        };
        let node = Node { mark: frame.mark, data };
        let nodes = self.nodes - frame.nodes_before;
        self.remember(frame.anchor, &node, nodes, frame.mark)?;
        self.place(node)
    }

    /// Keeps a copy of an anchored value. The copy counts as well.
    fn remember(&mut self, anchor: usize, node: &Node<'t>, nodes: usize, mark: Mark) -> Step {
        if anchor == 0 {
            return Ok(());
        }
        self.count(nodes, mark)?;
        self.anchors.insert(anchor, (node.clone(), nodes));
        Ok(())
    }

    /// Puts a complete value where it belongs: as key, value, item or the whole.
    fn place(&mut self, node: Node<'t>) -> Step {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, key, merged } => match key.take() {
                Some((name, mark)) if name == "<<" => match node.data {
                    Data::Map(_) => merged.push(node),
                    Data::List(items) if items.iter().all(|n| matches!(n.data, Data::Map(_))) => {
                        merged.extend(items);
                    }
                    _ => return Err(self.error(mark, "`<<` takes a mapping or a list of them")),
                },
                Some((name, mark)) => entries.push(Entry { key: name, mark, value: node }),
                None => match node.data {
                    Data::Scalar { text, .. } => *key = Some((text, node.mark)),
                    _ => {
                        return Err(
                            self.error(node.mark, "a list or mapping where a key is needed")
                        );
                    }
                },
            },
        }
        Ok(())
    }

    /// The keys of a mapping: its own, each once, then those that `<<` adds.
    fn merge(
        &mut self,
        mut entries: Vec<Entry<'t>>,
        merged: Vec<Node<'t>>,
    ) -> Result<Vec<Entry<'t>>, Box<Diagnostic>> {
        self.report_duplicates(&entries);
        let mut known: HashSet<String> = HashSet::new();
        if !merged.is_empty() {
            known.extend(entries.iter().map(|e| e.key.to_string()));
        }
        for source in merged {
            let Data::Map(added) = source.data else { continue };
            self.count(added.len(), source.mark)?;
            entries.extend(added.into_iter().filter(|e| known.insert(e.key.to_string())));
        }
        Ok(entries)
    }

    fn report_duplicates(&mut self, entries: &[Entry<'t>]) {
        let mut twice: Vec<(&Entry<'t>, Mark)> = Vec::new();
        if entries.len() <= KEYS_COMPARED_ONE_BY_ONE_MAX {
            for (i, entry) in entries.iter().enumerate() {
                if let Some(first) = entries[..i].iter().find(|e| e.key == entry.key) {
                    twice.push((entry, first.mark));
                }
            }
        } else {
            let mut seen: HashMap<&str, Mark> = HashMap::with_capacity(entries.len());
            for entry in entries {
                match seen.get(entry.key.as_ref()) {
                    Some(first) => twice.push((entry, *first)),
                    None => drop(seen.insert(&entry.key, entry.mark)),
                }
            }
        }
        let parent = if twice.is_empty() { String::new() } else { self.path() };
        for (entry, first) in twice {
            let dot = if parent.is_empty() { "" } else { "." };
            let problem = format!("given twice, first in line {}", first.line);
            let key = format!("{parent}{dot}{}", entry.key);
            self.report.push(Diagnostic::error(self.report.place(entry.mark), key, problem));
        }
    }

    /// The path of the value that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.open {
                Open::List(items) => path.push_str(&format!("[{}]", items.len())),
                Open::Map { key: Some((name, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Open::Map { .. } => {}
            }
        }
        path
    }
}

/// Whether a scalar may stand for something else than text. Tags of the core schema overrule its style.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>) -> bool {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() => tag.suffix != "str",
        Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => false,
        _ => style == ScalarStyle::Plain,
    }
}

/// The place of the first byte that is not UTF-8, counted in the text before it.
pub(crate) fn place_of_bad_utf8(bytes: &[u8], valid_up_to: usize, source: &str) -> Place {
    let before = String::from_utf8_lossy(&bytes[..valid_up_to.min(bytes.len())]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place::at(source.into(), line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let mut report = Report::new("f");
        let _ = read(text, &mut report);
        report.finish().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_know_their_place_and_style() {
        let mut report = Report::new("f");
        let text = "\u{feff}é: \"1\"\r\nlist: [a, ~]\r\n";
        let root = read(text, &mut report).unwrap();
        let Data::Map(entries) = root.data else { panic!("no mapping") };
        let Data::Scalar { text, plain } = &entries[0].value.data else { panic!("no scalar") };
        assert_eq!((text.as_ref(), *plain), ("1", false));
        assert_eq!(entries[0].value.mark, Mark { line: 1, column: 4 });
        let Data::List(items) = &entries[1].value.data else { panic!("no list") };
        assert!(items[1].is_null() && !items[0].is_null());
        assert_eq!(items[0].mark, Mark { line: 2, column: 8 });
    }

    #[test]
    fn aliases_and_merges_are_written_out() {
        let mut report = Report::new("f");
        let text = "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x\n";
        let root = read(text, &mut report).unwrap();
        assert!(report.finish().0.is_empty());
        let Data::Map(entries) = root.data else { panic!("no mapping") };
        let keys = |node: &Node<'_>| match &node.data {
            Data::Map(entries) => entries
                .iter()
                .map(|e| match &e.value.data {
                    Data::Scalar { text, .. } => format!("{}={text}", e.key),
                    _ => String::new(),
                })
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!(keys(&entries[1].value), ["k=3", "l=2"]);
        assert_eq!(keys(&entries[2].value), ["k=1", "l=2"]);
        assert_eq!(entries[2].value.mark, Mark { line: 3, column: 4 });
    }

    #[test]
    fn duplicates_are_found_in_small_and_large_mappings() {
        assert_eq!(
            errors("a: 1\nb:\n  - c: 1\n    c: 2\n"),
            ["f:4:5: error: b[0].c: given twice, first in line 3"]
        );
        let mut large: String = (0..40).map(|i| format!("k{i}: 1\n")).collect();
        large.push_str("k7: 2\n");
        assert_eq!(errors(&large), ["f:41:1: error: k7: given twice, first in line 8"]);
    }

    #[test]
    fn every_bound_holds() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert!(errors(&deep)[0].contains("inside each other"), "{:?}", errors(&deep));
        let deep = "- ".repeat(100_000);
        assert!(errors(&deep)[0].contains("inside each other"));
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let line = format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
            laughs.push_str(&line);
        }
        assert!(errors(&laughs)[0].contains("aliases written out"), "{:?}", errors(&laughs));
        assert!(errors("a: &a [*a]")[0].contains("alias inside"));
        assert!(errors("a: 1\n---\nb: 1\n")[0].contains("second document"));
        assert!(errors("? [a]\n: 1\n")[0].contains("where a key is needed"));
    }

    #[test]
    fn broken_utf8_has_a_place() {
        let bytes = b"a: 1\nb: \xff";
        assert_eq!(place_of_bad_utf8(bytes, 8, "f").to_string(), "f:2:4");
    }
}
