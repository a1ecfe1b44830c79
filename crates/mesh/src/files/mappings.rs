//! `portmappings.conf`: what runs on this host, items `clusterPort:hostPort:maxConn:sendProxy` between spaces or on
//! lines of their own.
//!
//! Beyond the original: comment lines are comments as a whole, and a file that breaks off in the middle of an item is
//! not taken for a shorter one.

use std::sync::Arc;

use model::Diagnostics;

use super::{Part, leading_number, leading_port};

/// Items of a host; the rest of the file is not looked at.
pub const MAPPINGS_MAX: usize = 65_536;

const EXPECTED: &str = "clusterPort:hostPort:maxConn:sendProxy, as 61000:30000:4096:false";

/// One item: connections to a cluster port may go to a port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The port that clients connect to, on any host.
    pub cluster_port: u16,
    /// The pod's port on this host.
    pub host_port: u16,
    /// Connections at a time.
    pub connections_max: u32,
    /// Whether each connection begins with a PROXY protocol header.
    pub wants_header: bool,
}

/// The items in the order of the file, and what is odd about it. An item that is none is left out; an error is only
/// a file that breaks off.
#[must_use]
pub fn parse(file: &Arc<str>, text: &str) -> (Vec<Mapping>, Diagnostics) {
    let mut mappings = Vec::new();
    let mut found = Diagnostics::default();
    let breaks_off = !text.is_empty() && !text.ends_with(['\n', '\r', ' ', '\t']);
    let mut last = None;
    for line in Part::lines(text) {
        last = None;
        if line.is_comment() {
            found.0.extend(commented_out(file, line));
            continue;
        }
        for item in line.split(char::is_whitespace).filter(|item| !item.text.is_empty()) {
            if mappings.len() == MAPPINGS_MAX {
                found.push(item.warning(file, format!("left out: {MAPPINGS_MAX} are enough")));
                return (mappings, found);
            }
            let read = mapping(item.text);
            last = Some((item, read.as_ref().is_ok_and(|(_, odd)| odd.is_none())));
            match read {
                Ok((mapping, odd)) => {
                    mappings.push(mapping);
                    found.0.extend(odd.map(|odd| item.warning(file, odd)));
                }
                Err(problem) => found.push(item.warning(file, problem).expected(EXPECTED)),
            }
        }
    }
    if let Some((item, false)) = last.filter(|_| breaks_off) {
        found.push(item.error(file, "the file breaks off here").expected(EXPECTED));
    }
    (mappings, found)
}

/// The original proxy knows no comments: it drops the item that the mark touches, and takes the others.
fn commented_out(file: &Arc<str>, line: Part<'_>) -> Option<model::Diagnostic> {
    let mut items = line.split(char::is_whitespace).skip(1);
    items.any(|item| mapping(item.text).is_ok()).then(|| {
        line.warning(file, "a comment here, but the original proxy takes the items on this line")
    })
}

/// One item, and what is odd about how it is written.
fn mapping(text: &str) -> Result<(Mapping, Option<&'static str>), &'static str> {
    let mut fields = text.split(':');
    let (Some(cluster), Some(host), Some(most), Some(header)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("left out: fewer than four fields");
    };
    let (cluster_port, a) = leading_port(cluster).ok_or("left out: no cluster port")?;
    let (host_port, b) = leading_port(host).ok_or("left out: no host port")?;
    let (most, c) = leading_number(most).ok_or("left out: no number of connections")?;
    let mapping = Mapping {
        cluster_port,
        host_port,
        connections_max: u32::try_from(most).unwrap_or(u32::MAX),
        wants_header: header == "true",
    };
    let odd = if fields.next().is_some() {
        Some("what follows the fourth field is ignored")
    } else if a || b || c {
        Some("what follows a number's digits is ignored")
    } else if !matches!(header, "true" | "false") {
        Some("sendProxy is neither true nor false, and taken for false")
    } else if mapping.connections_max == 0 {
        Some("it may have no connection at all")
    } else {
        None
    };
    Ok((mapping, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mapping: &Mapping) -> String {
        let Mapping { cluster_port, host_port, connections_max, wants_header } = mapping;
        format!("{cluster_port}:{host_port}:{connections_max}:{wants_header}")
    }

    #[test]
    fn every_kind_of_item() {
        for (text, items, problems) in [
            ("1024:3000:100:false\n", &["1024:3000:100:false"][..], &[][..]),
            ("1024:3000:100:false", &["1024:3000:100:false"], &[]),
            (
                "1:2:3:true 4:5:6:false\n7:8:9:true\n",
                &["1:2:3:true", "4:5:6:false", "7:8:9:true"],
                &[],
            ),
            ("\r\n 1:2:3:true\t4:5:6:false \r\n", &["1:2:3:true", "4:5:6:false"], &[]),
            ("1:2:3:TRUE\n", &["1:2:3:false"], &["m:1:1: warning: sendProxy is neither"]),
            ("1:2:3\n", &[], &["fewer than four fields"]),
            ("1:2:3:true:x:y\n", &["1:2:3:true"], &["what follows the fourth"]),
            ("1x:2y:3z:true\n", &["1:2:3:true"], &["digits is ignored"]),
            (
                "x:2:3:true 4:y:6:true 7:8:z:true\n",
                &[],
                &["cluster port", "host port", "connections"],
            ),
            ("0:2:3:true 70000:2:3:true\n", &[], &["no cluster port", "no cluster port"]),
            ("1:2:0:true\n", &["1:2:0:true"], &["no connection at all"]),
            ("1:2:99999999999:true\n", &["1:2:4294967295:true"], &[]),
            ("1:2:-1:true\n", &[], &["connections"]),
            ("#1:2:3:true\n4:5:6:true\n", &["4:5:6:true"], &[]),
            ("#1:2:3:true 4:5:6:true\n", &[], &["the original proxy takes"]),
            ("# 1:2:3:true\n", &[], &["the original proxy takes"]),
            ("# text\n### EOF\n", &[], &[]),
            ("1:2:3:true\n1:2:3:true\n", &["1:2:3:true", "1:2:3:true"], &[]),
            (
                "1:2:3:true\n4:5:6",
                &["1:2:3:true"],
                &["fewer than four", "m:2:1: error: the file breaks off"],
            ),
            ("4:5:6:tru", &["4:5:6:false"], &["neither", "m:1:1: error: the file breaks off"]),
            ("", &[], &[]),
        ] {
            let (parsed, found) = parse(&"m".into(), text);
            let parsed: Vec<String> = parsed.iter().map(shown).collect();
            assert_eq!(parsed, items, "{text:?}");
            assert_eq!(found.0.len(), problems.len(), "{text:?}: {found}");
            for (diagnostic, part) in found.0.iter().zip(problems) {
                assert!(diagnostic.to_string().contains(part), "{text:?}: {diagnostic}");
            }
            assert_eq!(found.has_errors(), problems.iter().any(|p| p.contains("error")));
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_or_ends_with_a_whole_item() {
        let text = "61000:30000:4096:false\n61001:30001:4096:true\n";
        for cut in 1..text.len() {
            let (mappings, found) = parse(&"m".into(), &text[..cut]);
            let whole = mappings.iter().all(|m| text.contains(&shown(m)));
            assert!(found.has_errors() || whole, "{:?}", &text[..cut]);
        }
    }
}
