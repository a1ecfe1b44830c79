//! How the results look: a line while measuring, a table for each case, and the committed bench/README.md,
//! whose prose is written by hand and whose figures stand between two marks.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    case::{self, Case},
    results::{self, Figures, Results},
    svg,
};
use crate::sh;

const PAGE: &str = "bench/README.md";
const CHART: &str = "bench/gateway.svg";
const BEGIN: &str = "<!-- figures: written by cargo xtask bench gateway --save -->";
const END: &str = "<!-- end of figures -->";

/// The results so far; none yet is not an error.
pub(crate) fn read<R: DeserializeOwned + Default>(file: &Path) -> Result<R> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("read {}: remove it", file.display())),
        Err(_) => Ok(R::default()),
    }
}

pub(crate) fn write(file: &Path, results: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(results).context("write the results as JSON")?;
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Date, processor, kernel and effort of a run.
pub(crate) fn conditions(seconds: u64, rounds: u64) -> Result<String> {
    let date = sh::capture(Command::new("date").args(["-u", "+%F"]))?;
    let kernel = sh::capture(Command::new("uname").arg("-r"))?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let (date, kernel) = (date.trim(), kernel.trim());
    Ok(format!("{date}, {model}, Linux {kernel}, middle one of {rounds} rounds of {seconds} s"))
}

/// What was measured just now.
pub(crate) fn one_line(figures: &Figures) -> String {
    match figures {
        Figures::Load(load) => format!(
            "{:7.2} µs = {:6.2} user + {:6.2} system  {:>8.0}/s  p50 {:.2} ms  p99 {:.2} ms  {:.1} MB",
            load.cpu_us(),
            load.user_us,
            load.system_us,
            load.requests_a_second,
            load.p50_us / 1000.0,
            load.p99_us / 1000.0,
            megabytes(load.resident_bytes),
        ),
        Figures::Idle { bytes_each, resident_bytes } => format!(
            "{:.2} KiB a connection, {:.1} MB in all",
            bytes_each / 1024.0,
            megabytes(*resident_bytes)
        ),
        Figures::Reload(reload) => format!(
            "live after {:.1} ms (slowest {:.1} ms), p99 {:.2} ms before, {:.2} ms meanwhile",
            reload.applied_ms,
            reload.slowest_ms,
            reload.p99_before_us / 1000.0,
            reload.p99_during_us / 1000.0,
        ),
        Figures::NotRun(reason) => format!("not run: {reason}"),
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// One case as a Markdown table.
pub(crate) fn table(case: Case, results: &Results) -> String {
    let Some(result) = results.cases.get(case.name()) else { return String::new() };
    let mut text = format!("### `{}`: {}\n\n", case.name(), case.title());
    text.push_str(match case {
        Case::Idle => "| proxy | KiB a connection | RSS in all, MB |\n|---|---:|---:|\n",
        Case::Reload => {
            "| proxy | live after, ms | slowest, ms | p99 before, ms | p99 meanwhile, ms |\n\
             |---|---:|---:|---:|---:|\n"
        }
        _ => {
            "| proxy | CPU a request, µs | user | system | requests a second | p50, ms | p99, ms \
             | RSS, MB |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n"
        }
    });
    for row in results::in_order(&result.rows) {
        if case == Case::Reload && matches!(row.figures, Figures::NotRun(_)) {
            continue;
        }
        let _ = writeln!(text, "| {} {} | {} |", row.proxy, row.version, cells(&row.figures));
    }
    let _ = write!(text, "\n{}.\n", result.conditions);
    text
}

fn cells(figures: &Figures) -> String {
    match figures {
        Figures::Load(load) => format!(
            "**{:.1}** | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} | {:.1}",
            load.cpu_us(),
            load.user_us,
            load.system_us,
            load.requests_a_second,
            load.p50_us / 1000.0,
            load.p99_us / 1000.0,
            megabytes(load.resident_bytes),
        ),
        Figures::Idle { bytes_each, resident_bytes } => {
            format!("**{:.2}** | {:.1}", bytes_each / 1024.0, megabytes(*resident_bytes))
        }
        Figures::Reload(reload) => format!(
            "**{:.1}** | {:.1} | {:.2} | {:.2}",
            reload.applied_ms,
            reload.slowest_ms,
            reload.p99_before_us / 1000.0,
            reload.p99_during_us / 1000.0,
        ),
        // The first line only: what a program said before it failed is in bench/out.
        Figures::NotRun(reason) => {
            format!("not run: {}", reason.lines().next().unwrap_or_default())
        }
    }
}

/// The targets as a list.
pub(crate) fn targets(results: &Results) -> String {
    let mut text = String::new();
    for target in results::targets(results) {
        let mark = if target.kept { "kept" } else { "**missed**" };
        let _ = writeln!(text, "- {}: {} ({mark})", target.promise, target.measured);
    }
    text
}

/// Write the chart, and the figures into the page.
pub(crate) fn save(results: &Results) -> Result<()> {
    fs::write(sh::root().join(CHART), svg::chart(results)).context("write the chart")?;
    put_figures(PAGE, BEGIN, &figures(results))?;
    println!("wrote {PAGE} and {CHART}");
    Ok(())
}

/// Replaces what a page has between its mark `begin` and the end of figures.
pub(crate) fn put_figures(name: &str, begin: &str, figures: &str) -> Result<()> {
    let file = sh::root().join(name);
    let page = fs::read_to_string(&file).with_context(|| format!("read {name}"))?;
    let page = with_figures(&page, begin, figures).with_context(|| format!("{name}: no marks"))?;
    fs::write(&file, page).with_context(|| format!("write {name}"))
}

fn figures(results: &Results) -> String {
    let tables: Vec<String> = case::ALL
        .into_iter()
        .map(|case| table(case, results))
        .filter(|table| !table.is_empty())
        .collect();
    format!("### Targets\n\n{}\n{}", targets(results), tables.join("\n"))
}

/// The page with what stands between the marks replaced.
fn with_figures(page: &str, begin: &str, figures: &str) -> Option<String> {
    let (head, rest) = page.split_once(begin)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{begin}\n\n{figures}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("# Bench\n\n{BEGIN}\nold\n{END}\n\nprose\n");
        let new = with_figures(&page, BEGIN, "new\n").expect("both marks");
        assert_eq!(new, format!("# Bench\n\n{BEGIN}\n\nnew\n\n{END}\n\nprose\n"));
        assert_eq!(with_figures(&new, BEGIN, "new\n").as_deref(), Some(new.as_str()));
        assert_eq!(with_figures("no marks", BEGIN, "new"), None);
    }
}
