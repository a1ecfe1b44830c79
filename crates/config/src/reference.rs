//! The tables of [`crate::keys`] as a page for people: `docs/configuration.md`.

use std::fmt::Write as _;

use crate::keys::{Key, Kind, SECTIONS, Section};

/// The reference of all keys in Markdown, with an example for each. `docs/configuration.md` is this text.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in SECTIONS {
        let name = match section.path {
            "" => "the file".into(),
            path => format!("`{path}`"),
        };
        let _ = writeln!(page, "- [{name}](#{})", anchor(section));
    }
    for section in SECTIONS {
        write_section(&mut page, section);
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Generated from crates/config/src/keys by `cargo xtask generate`; do not edit. -->

# Configuration file

One YAML file says what the gateway serves. Every NanoProxy file is one. Editors that know JSON Schema
complete and check it with [gateway.schema.json](gateway.schema.json) when its first line names the schema by
path or URL:

```yaml
# yaml-language-server: $schema=gateway.schema.json
```

`cloverleaf check FILE` prints everything that is wrong with a file, each with line, column, the offending
value and what was expected. A running gateway applies a changed file whole or not at all: while there is an
error in it, the last good state stays.

- **Durations** are numbers with a unit, `500ms`, `5s`, `2m`, `1h` or `1m30s`, or plain numbers of seconds; at
  most 30 days.
- **Sizes** are numbers of bytes, with or without one of the units `KiB`, `MiB`, `GiB` and `TiB`.
- **Files** with a relative path begin at the directory of the configuration file. They are watched too.
- A key that is **blank** or `null` counts as absent. **Unknown** keys are ignored with a warning.
- YAML **anchors, aliases and `<<`** work; a key given twice, a second document, or an empty file is an error.

## Sections

";

fn title(section: &Section) -> String {
    if section.path.is_empty() {
        "Keys of the file".into()
    } else {
        format!("Keys of `{}`", section.path)
    }
}

/// What Markdown makes of the title: lower case, hyphens for spaces, everything but letters and digits
/// dropped.
fn anchor(section: &Section) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c => c.is_ascii_alphanumeric().then(|| c.to_ascii_lowercase()),
    };
    title(section).chars().filter_map(kept).collect()
}

fn write_section(page: &mut String, section: &Section) {
    let _ = write!(page, "\n## {}\n\n", title(section));
    wrap(page, section.doc);
    page.push_str("\n| key | takes | default |\n|---|---|---|\n");
    for key in section.keys {
        let _ = writeln!(page, "| `{}` | {} | {} |", key.name, takes(key), key.default);
    }
    for key in section.keys {
        let dot = if section.path.is_empty() { "" } else { "." };
        let _ = write!(page, "\n### `{}{dot}{}`\n\n", section.path, key.name);
        wrap(page, key.doc);
        let _ = write!(page, "\n```yaml\n{}```\n", key.example);
    }
}

/// The type, with a link where it is a section.
fn takes(key: &Key) -> String {
    let linked = |section: &Section| format!("[`{}`](#{})", section.path, anchor(section));
    match key.kind {
        Kind::Object(section) => linked(section),
        Kind::List(Kind::Object(section)) => format!("a list of {}", linked(section)),
        Kind::Choice(words) | Kind::LenientChoice(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::ChoiceOr(words, section) => {
            let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            format!("{words} or {}", linked(section))
        }
        Kind::TextOr(section) => format!("a name or {}", linked(section)),
        Kind::List(Kind::Choice(words)) => {
            let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            format!("a list of {words}")
        }
        Kind::Boolean => "`true` or `false`".into(),
        Kind::Port => "a number from 1 to 65535".into(),
        Kind::Integer(min, max) => format!("a number from {min} to {max}"),
        kind => kind.text(),
    }
}

/// Breaks a text into lines of at most 110 characters.
fn wrap(page: &mut String, text: &str) {
    const LINE_CHARS_MAX: usize = 110;
    let mut length = 0;
    for word in text.split_whitespace() {
        let chars = word.chars().count();
        if length > 0 && length + 1 + chars > LINE_CHARS_MAX {
            page.push('\n');
            length = 0;
        } else if length > 0 {
            page.push(' ');
            length += 1;
        }
        page.push_str(word);
        length += chars;
    }
    page.push('\n');
}
