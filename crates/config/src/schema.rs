//! The tables of [`crate::keys`] as a JSON Schema (draft 2020-12) for editors: `docs/gateway.schema.json`.
//!
//! It is for completion and early hints. What it cannot say (names that must exist, addresses that must
//! differ) the decoder says; where both speak, the schema is never stricter, except that it marks unknown
//! keys, which the decoder only warns of.

use serde_json::{Map, Value, json};

use crate::keys::{Kind, SECTIONS, Section, TOP};

/// The schema as text, ending with a newline. `docs/gateway.schema.json` is this text.
#[must_use]
pub fn json_schema() -> String {
    let mut definitions = Map::new();
    for section in SECTIONS.iter().filter(|s| !s.path.is_empty()) {
        definitions.insert(section.id.into(), object(section));
    }
    let mut schema = object(&TOP);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Cloverleaf gateway configuration");
    schema["description"] =
        json!("Generated from crates/config/src/keys by `cargo xtask generate`.");
    schema["$defs"] = Value::Object(definitions);
    // Writing a Value as text cannot fail: its keys are strings and it holds no foreign types.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn object(section: &Section) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in section.keys {
        let mut property = kind(key.kind);
        property["description"] = json!(format!("{} Default: {}.", key.doc, plain(key.default)));
        if key.default == "required" {
            required.push(key.name);
        }
        properties.insert(key.name.into(), property);
    }
    let mut object = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// Without Markdown: `see [limits](#keys-of-limits)` is `see limits`.
fn plain(text: &str) -> String {
    let text = text.replace('`', "");
    match (text.find('['), text.find("](#")) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &text[..open], &text[open + 1..close])
        }
        _ => text,
    }
}

fn kind(of: Kind) -> Value {
    match of {
        // The decoder takes any scalar as a text; `name: 7` is the name "7".
        Kind::Text
        | Kind::Host
        | Kind::HostPattern
        | Kind::UrlPath
        | Kind::File
        | Kind::Cluster => {
            json!({ "type": ["string", "number", "null"] })
        }
        Kind::Boolean => json!({ "type": ["boolean", "null"] }),
        Kind::Integer(min, max) => {
            json!({ "type": ["integer", "null"], "minimum": min, "maximum": max })
        }
        Kind::Number(numbers) => {
            let numbers = numbers.iter().map(|number| json!(number));
            json!({ "enum": numbers.chain([Value::Null]).collect::<Vec<_>>() })
        }
        Kind::Port => kind(Kind::Integer(0, 65_535)),
        Kind::Duration { zero } => {
            let unit = "([0-9]+(\\.[0-9]+)?(ms|s|m|h))+|[0-9]+(\\.[0-9]+)?";
            let mut number = json!({ "type": "number" });
            number[if zero { "minimum" } else { "exclusiveMinimum" }] = json!(0);
            json!({ "anyOf": [
                { "type": "string", "pattern": format!("^({unit})$") },
                number,
                { "type": "null" },
            ]})
        }
        Kind::Size => json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB|TiB)?$" },
            { "type": "integer", "minimum": 1 },
            { "type": "null" },
        ]}),
        Kind::Statuses => json!({ "anyOf": [
            { "type": "string", "pattern": "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$" },
            { "type": "integer", "minimum": 200, "maximum": 599 },
            { "type": "null" },
        ]}),
        Kind::Choice(words) => choice(words),
        Kind::LenientChoice(words) => {
            json!({ "anyOf": [choice(words), { "type": ["string", "null"] }] })
        }
        Kind::ListenAddress => json!({ "anyOf": [
            { "type": "string", "pattern": "^(:?[0-9]{1,5}|.+:[0-9]{1,5})$" },
            { "type": "integer", "minimum": 0, "maximum": 65535 },
        ]}),
        Kind::HostPort | Kind::SocketAddress => {
            json!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" })
        }
        Kind::SocketAddressOrOff => {
            json!({ "type": "string", "pattern": "^(off|.+:[0-9]{1,5})$" })
        }
        Kind::TunnelServers => json!({ "type": "string", "pattern": tunnel_servers() }),
        Kind::Network => json!({ "type": "string" }),
        Kind::ChoiceOr(words, section) => json!({ "anyOf": [choice(words), refer(section)] }),
        Kind::TextOr(section) => json!({ "anyOf": [kind(Kind::Text), refer(section)] }),
        Kind::Object(section) => json!({ "anyOf": [refer(section), { "type": "null" }] }),
        Kind::List(item) => {
            let item = match item {
                Kind::Object(section) => refer(section),
                other => kind(*other),
            };
            json!({ "type": ["array", "null"], "items": item })
        }
    }
}

/// One, or several between commas.
fn tunnel_servers() -> String {
    let one = "(unix:[^,]+|[^,]+:[0-9]{1,5})";
    format!("^{one}(,{one})*$")
}

/// A mapping that is described elsewhere.
fn refer(section: &Section) -> Value {
    json!({ "$ref": format!("#/$defs/{}", section.id) })
}

/// The words, or nothing: blank counts as absent.
fn choice(words: &[&str]) -> Value {
    let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
    // An unquoted 1.2 is a number to an editor.
    all.extend(words.iter().filter_map(|w| w.parse::<f64>().ok()).map(|n| json!(n)));
    all.extend([json!(""), Value::Null]);
    json!({ "enum": all })
}
