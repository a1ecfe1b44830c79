//! The paths annotation of a Pod: an array of routes, each to one of the Pod's ports.
//!
//! One entry's mistake leaves that entry out and no other. Pure. Must not know hosts or other Pods.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::json::{Fault, Named, Shown, member, parse, unknown};
use super::url_path;
use crate::objects::Container;

/// Routes of one Pod; the rest is left out.
const ROUTES_MAX: usize = 200;
/// The largest weight.
const WEIGHT_MAX: u32 = 1_000_000;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Which requests: decoded, begins with a slash.
    pub(super) base_path: String,
    /// What takes its place, encoded; begins with a slash.
    pub(super) target_path: Option<Arc<str>>,
    /// The port that serves it.
    pub(super) port: u16,
    /// The index of the container that declares the port.
    pub(super) container: usize,
    /// From 1.
    pub(super) weight: u32,
}

/// Reads an annotation; `name` is its name, for messages.
pub(super) fn read(name: &str, text: &str, containers: &[Container]) -> (Vec<Route>, Vec<Fault>) {
    let whole = |message: String| {
        let message = format!("annotation {name}: {message}; no path of this Pod is served");
        (Vec::new(), vec![Fault::new("InvalidPaths", message)])
    };
    let entries = match parse(text) {
        Ok(Value::Array(entries)) => entries,
        Ok(other) => {
            let found = Named(&other);
            return whole(format!("found {found}, expected an array of objects"));
        }
        Err(error) => return whole(error),
    };
    let mut faults = Vec::new();
    if entries.len() > ROUTES_MAX {
        let message = format!(
            "annotation {name}: {} entries, at most {ROUTES_MAX} are served; the last ones are left out",
            entries.len()
        );
        faults.push(Fault::new("TooManyPaths", message));
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, entry) in entries.iter().take(ROUTES_MAX).enumerate() {
        let at = format!("annotation {name}[{index}]");
        match route(&at, entry, containers, &mut faults) {
            Err(fault) => faults.push(fault),
            Ok(route)
                if routes
                    .iter()
                    .any(|r| (&r.base_path, r.port) == (&route.base_path, route.port)) =>
            {
                let path = Shown(&route.base_path);
                let message =
                    format!("{at}: basePath {path} and its port stand here before; left out");
                faults.push(Fault::new("DuplicatePath", message));
            }
            Ok(route) => routes.push(route),
        }
    }
    (routes, faults)
}

fn route(
    at: &str,
    entry: &Value,
    containers: &[Container],
    faults: &mut Vec<Fault>,
) -> Result<Route, Fault> {
    let Value::Object(entry) = entry else {
        let message = format!("{at}: found {}, expected an object; left out", Named(entry));
        return Err(Fault::new("InvalidPath", message));
    };
    let base_path = path(at, entry, "basePath", url_path::decoded)?
        .ok_or_else(|| Fault::new("InvalidPath", format!("{at}: basePath is missing; left out")))?;
    let target_path = path(at, entry, "targetPath", url_path::encoded)?.map(Arc::from);
    let port = port(at, entry)?;
    let declares = |container: &Container| container.ports.iter().any(|(_, p)| *p == port);
    let container = containers.iter().position(declares).ok_or_else(|| {
        let message = format!(
            "{at}: no container of the Pod declares the containerPort {port} (TCP); left out"
        );
        Fault::new("UndeclaredPort", message)
    })?;
    let weight = weight(at, entry)?;
    // One that is misspelt would change what is served without a word.
    for name in unknown(entry, &["basePath", "targetPath", "containerPort", "weight"]) {
        let message = format!("{at}: {} is not known and ignored", Shown(name));
        faults.push(Fault::new("UnknownOption", message));
    }
    Ok(Route { base_path, target_path, port, container, weight })
}

fn path(
    at: &str,
    entry: &Map<String, Value>,
    name: &str,
    read: fn(&str) -> Result<String, url_path::Fault>,
) -> Result<Option<String>, Fault> {
    match member(entry, name) {
        None => Ok(None),
        Some(Value::String(text)) => read(text).map(Some).map_err(|fault| {
            let message = format!("{at}: {name} {}: {fault}; left out", Shown(text));
            Fault::new("InvalidPath", message)
        }),
        Some(other) => {
            let found = Named(other);
            let message = format!("{at}: {name}: found {found}, expected a text; left out");
            Err(Fault::new("InvalidPath", message))
        }
    }
}

/// A number in a text, as the dispatcher had it; a number alone will do.
fn port(at: &str, entry: &Map<String, Value>) -> Result<u16, Fault> {
    let fault = |found: String| {
        let message =
            format!("{at}: containerPort: {found}, expected a number from 1 to 65535; left out");
        Fault::new("InvalidPort", message)
    };
    let value = member(entry, "containerPort").ok_or_else(|| fault("it is missing".to_owned()))?;
    let port = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        _ => None,
    };
    port.filter(|port| *port > 0).ok_or_else(|| fault(format!("found {}", Named(value))))
}

fn weight(at: &str, entry: &Map<String, Value>) -> Result<u32, Fault> {
    let Some(value) = member(entry, "weight") else { return Ok(1) };
    let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
    weight.filter(|weight| (1..=WEIGHT_MAX).contains(weight)).ok_or_else(|| {
        let found = Named(value);
        let message = format!(
            "{at}: weight: found {found}, expected a whole number from 1 to {WEIGHT_MAX}; left out"
        );
        Fault::new("InvalidWeight", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers() -> Vec<Container> {
        let container = |ports: &[u16]| Container {
            ports: ports.iter().map(|port| ("".into(), *port)).collect(),
            probe: None,
        };
        vec![container(&[80]), container(&[3000, 443])]
    }

    fn shown(routes: &[Route]) -> Vec<String> {
        let one = |r: &Route| {
            let target = r.target_path.as_deref().unwrap_or("-");
            format!("{} {target} {}@{} {}", r.base_path, r.port, r.container, r.weight)
        };
        routes.iter().map(one).collect()
    }

    #[test]
    fn entries_are_read() {
        for (text, expected) in [
            (
                r#"[{"basePath": "/", "containerPort": "80"},
                    {"basePath": "/nodejs", "containerPort": "3000"}]"#,
                &["/ - 80@0 1", "/nodejs - 3000@1 1"][..],
            ),
            (
                r#"[{"basePath": "/foo", "containerPort": "3000", "targetPath": "/bar", "weight": 5}]"#,
                &["/foo /bar 3000@1 5"][..],
            ),
            (
                r#"[{"BasePath": "/a", "containerport": 443, "targetPath": null, "weight": null}]"#,
                &["/a - 443@1 1"],
            ),
            (
                r#"[{"basePath": "/a%20b;c", "containerPort": "80", "targetPath": "/"}]"#,
                &["/a b;c / 80@0 1"],
            ),
            (
                r#"[{"basePath": "/a", "containerPort": "80"}, {"basePath": "/a", "containerPort": "3000"}]"#,
                &["/a - 80@0 1", "/a - 3000@1 1"],
            ),
            ("[]", &[]),
        ] {
            let (routes, faults) = read("paths", text, &containers());
            assert_eq!(shown(&routes), expected, "{text}");
            assert!(faults.is_empty(), "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_bad_entry_is_left_out_alone() {
        for (entry, expected) in [
            (r#"{"path": "/a", "containerPort": "80"}"#, "basePath is missing"),
            (r#"{"basePath": "", "containerPort": "80"}"#, "begins with /"),
            (r#"{"basePath": "[", "containerPort": "80"}"#, r#"basePath "[""#),
            (r#"{"basePath": "a", "containerPort": "80"}"#, "begins with /"),
            (r#"{"basePath": 7, "containerPort": "80"}"#, "found the number 7"),
            (
                r#"{"basePath": "/x { return 418; } location /y", "containerPort": "80"}"#,
                "percent-encoded",
            ),
            (r#"{"basePath": "/a\nb", "containerPort": "80"}"#, "control characters"),
            (r#"{"basePath": "/a", "containerPort": "80", "targetPath": ""}"#, "targetPath"),
            (
                r#"{"basePath": "/a", "containerPort": "80", "targetPath": "["}"#,
                r#"targetPath "[""#,
            ),
            (r#"{"basePath": "/a", "containerPort": "80", "targetPath": {}}"#, "found an object"),
            (r#"{"basePath": "/a"}"#, "it is missing"),
            (r#"{"basePath": "/a", "containerPort": "abc"}"#, r#"found the text "abc""#),
            (r#"{"basePath": "/a", "containerPort": "-1"}"#, "from 1 to 65535"),
            (r#"{"basePath": "/a", "containerPort": "77777"}"#, "from 1 to 65535"),
            (r#"{"basePath": "/a", "containerPort": 0}"#, "from 1 to 65535"),
            (r#"{"basePath": "/a", "containerPort": 80.5}"#, "from 1 to 65535"),
            (r#"{"basePath": "/a", "containerPort": "81"}"#, "declares the containerPort 81"),
            (
                r#"{"basePath": "/a", "containerPort": "80", "weight": 0}"#,
                "weight: found the number 0",
            ),
            (r#"{"basePath": "/a", "containerPort": "80", "weight": -2}"#, "weight"),
            (r#"{"basePath": "/a", "containerPort": "80", "weight": "2"}"#, "weight"),
            (r#"{"basePath": "/a", "containerPort": "80", "weight": 4000000000}"#, "weight"),
            (r#"{"basePath": "/good", "containerPort": "80"}"#, "stand here before"),
            ("7", "found the number 7"),
            ("null", "found null"),
        ] {
            let text = format!(r#"[{{"basePath": "/good", "containerPort": "80"}}, {entry}]"#);
            let (routes, faults) = read("paths", &text, &containers());
            assert_eq!(shown(&routes), ["/good - 80@0 1"], "{entry}");
            let [fault] = &*faults else { panic!("{entry}: {faults:?}") };
            assert!(fault.message.contains(expected), "{entry}: {}", fault.message);
            assert!(fault.message.contains("paths[1]"), "{entry}: {}", fault.message);
            assert!(!fault.message.chars().any(char::is_control), "{entry}");
        }
    }

    #[test]
    fn what_is_no_array_gives_none() {
        for text in ["", "{", "{}", "\"/a\"", "null", "/a:80"] {
            let (routes, faults) = read("paths", text, &containers());
            assert!(routes.is_empty() && faults.len() == 1, "{text}");
            assert_eq!(faults[0].reason, "InvalidPaths");
        }
    }

    #[test]
    fn unknown_members_are_said_and_passed_over() {
        let text = r#"[{"basePath": "/a", "containerPort": "80", "tagetPath": "/b"}]"#;
        let (routes, faults) = read("paths", text, &containers());
        assert_eq!((routes.len(), faults.len()), (1, 1));
        assert!(faults[0].message.contains("\"tagetPath\" is not known"), "{faults:?}");
    }

    #[test]
    fn entries_are_bounded() {
        let entry = |i| format!(r#"{{"basePath": "/{i}", "containerPort": "80"}}"#);
        let many: Vec<String> = (0..=ROUTES_MAX).map(entry).collect();
        let (routes, faults) = read("paths", &format!("[{}]", many.join(",")), &containers());
        assert_eq!((routes.len(), faults.len()), (ROUTES_MAX, 1));
    }
}
