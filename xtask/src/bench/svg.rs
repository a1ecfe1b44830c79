//! The chart: a panel for each case, a bar for each proxy, shorter is better. Written by hand as SVG,
//! readable on a light and a dark page.

use std::fmt::Write as _;

use super::{
    case::Case,
    results::{self, Figures, Results, Row},
};

const PANEL_WIDTH: f64 = 430.0;
const BAR_HEIGHT: f64 = 17.0;
const BAR_STEP: f64 = 23.0;
const NAME_WIDTH: f64 = 82.0;
const VALUE_WIDTH: f64 = 62.0;
const TITLE_HEIGHT: f64 = 42.0;
const GAP: f64 = 24.0;
const HEAD_HEIGHT: f64 = 62.0;
/// Cases with a panel, in reading order.
const PANELS: [Case; 8] = [
    Case::Plain,
    Case::Tls,
    Case::TlsNew,
    Case::H2,
    Case::Large,
    Case::Rules10,
    Case::Rules100000,
    Case::Idle,
];
const STYLE: &str = "
  .page { fill: #ffffff } .ink { fill: #1f2430 } .soft { fill: #5b6472 }
  .user { fill: #9fb3c8 } .system { fill: #d4dde6 }
  .own .user { fill: #1f8a4c } .own .system { fill: #7fc79b } .own text { font-weight: 600 }
  text { font: 13px system-ui, sans-serif } .title { font-weight: 600; font-size: 14px }
  .head { font-weight: 600; font-size: 18px }
  @media (prefers-color-scheme: dark) {
    .page { fill: #14171c } .ink { fill: #e8ebf0 } .soft { fill: #9aa4b2 }
    .user { fill: #5f7488 } .system { fill: #38444f }
    .own .user { fill: #37b46c } .own .system { fill: #1f6b40 }
  }";

/// A bar: dark part, light part.
struct Bar<'a> {
    proxy: &'a str,
    user: f64,
    system: f64,
}

/// The whole picture.
pub(crate) fn chart(results: &Results) -> String {
    let panels: Vec<(Case, Vec<Bar<'_>>)> = PANELS
        .into_iter()
        .filter_map(|case| Some((case, bars(&results.cases.get(case.name())?.rows))))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let mut body = String::new();
    let mut y = HEAD_HEIGHT;
    for pair in panels.chunks(2) {
        for (column, (case, bars)) in pair.iter().enumerate() {
            let x = GAP + column as f64 * (PANEL_WIDTH + GAP);
            let _ =
                write!(body, "<g transform=\"translate({x} {y})\">\n{}</g>\n", panel(*case, bars));
        }
        let tallest = pair.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
        y += TITLE_HEIGHT + tallest as f64 * BAR_STEP + GAP;
    }
    let width = 2.0 * PANEL_WIDTH + 3.0 * GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" \
         width=\"{width}\" height=\"{y}\" role=\"img\" \
         aria-label=\"CPU time a request of Cloverleaf and other proxies\">\n\
         <style>{STYLE}\n</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n\
         <text class=\"head ink\" x=\"{GAP}\" y=\"30\">CPU a request on one core</text>\n\
         <text class=\"soft\" x=\"{GAP}\" y=\"49\">Shorter is better. Dark: the program itself; \
         light: the kernel on its behalf. Each panel has its own scale.</text>\n{body}</svg>\n"
    )
}

fn bars(rows: &[Row]) -> Vec<Bar<'_>> {
    results::in_order(rows)
        .into_iter()
        .filter_map(|row| match &row.figures {
            Figures::Load(load) => {
                Some(Bar { proxy: &row.proxy, user: load.user_us, system: load.system_us })
            }
            Figures::Idle { bytes_each, .. } => {
                Some(Bar { proxy: &row.proxy, user: bytes_each / 1024.0, system: 0.0 })
            }
            Figures::Reload(_) | Figures::NotRun(_) => None,
        })
        .collect()
}

fn panel(case: Case, bars: &[Bar<'_>]) -> String {
    let unit = if case == Case::Idle { "KiB" } else { "µs" };
    let longest = bars.iter().map(|bar| bar.user + bar.system).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH) / longest;
    let what = if case == Case::Idle { "memory each" } else { "CPU a request" };
    let mut text = format!(
        "<text class=\"title ink\" y=\"16\">{}</text>\n<text class=\"soft\" y=\"33\">{what}, {unit}</text>\n",
        case.title()
    );
    for (index, bar) in bars.iter().enumerate() {
        let y = TITLE_HEIGHT + index as f64 * BAR_STEP;
        let (user, system) = (bar.user * scale, bar.system * scale);
        let own = if bar.proxy == "cloverleaf" { " class=\"own\"" } else { "" };
        let total = bar.user + bar.system;
        let _ = writeln!(
            text,
            "<g{own}><text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"user\" x=\"{NAME_WIDTH}\" y=\"{y:.1}\" width=\"{user:.1}\" \
             height=\"{BAR_HEIGHT}\"/>\
             <rect class=\"system\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{system:.1}\" \
             height=\"{BAR_HEIGHT}\"/>\
             <text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            NAME_WIDTH - 8.0,
            y + 13.0,
            bar.proxy,
            NAME_WIDTH + user,
            NAME_WIDTH + user + system + 6.0,
            y + 13.0,
            if total < 100.0 { format!("{total:.1}") } else { format!("{total:.0}") },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{CaseResult, Load};

    #[test]
    fn a_panel_has_a_bar_for_each_proxy_that_ran() {
        let load = Figures::Load(Load {
            user_us: 2.0,
            system_us: 8.0,
            requests_a_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            resident_bytes: 1,
        });
        let row = |proxy: &str, figures| Row {
            proxy: proxy.to_owned(),
            version: "1".to_owned(),
            figures,
        };
        let rows = vec![
            row("cloverleaf", load.clone()),
            row("nginx", load),
            row("envoy", Figures::NotRun("no".into())),
        ];
        let mut results = Results::default();
        results.cases.insert("plain".to_owned(), CaseResult { conditions: String::new(), rows });
        let svg = chart(&results);
        assert_eq!(svg.matches("class=\"user\"").count(), 2);
        assert_eq!(svg.matches("class=\"own\"").count(), 1);
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
