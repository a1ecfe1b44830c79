//! Metrics as they are served, and the tables of a page that documents them, to be compared.
//!
//! Must not know any metric.

use std::collections::BTreeSet;

/// A family as the page has it: a row of name, type and labels, each in backticks but the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documented {
    /// Its whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Its labels.
    pub labels: BTreeSet<String>,
}

impl Documented {
    /// Whether a family that is served under this name is it: the older text form says the whole name, the newer one
    /// that of a counter without its end.
    #[must_use]
    pub fn is(&self, served: &str) -> bool {
        self.name == served || self.name.strip_suffix("_total") == Some(served)
    }
}

/// The value of a metric on a page in the text format, by its name with its labels as they stand there.
#[must_use]
pub fn value(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split(' ').next()?.parse().ok()
}

/// All families of a page.
#[must_use]
pub fn documented(page: &str) -> Vec<Documented> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = *cells.get(2)?;
        let labels = cells.get(3)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        matches!(kind, "counter" | "gauge" | "histogram").then(|| Documented {
            name: name.to_owned(),
            kind: kind.to_owned(),
            labels,
        })
    };
    page.lines().filter_map(row).collect()
}
