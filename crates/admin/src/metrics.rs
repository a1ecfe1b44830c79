//! Metrics as plain data, and their text form.
//!
//! A role fills [`Family`] values at each scrape; prometheus-client's encoder writes them, so that
//! escaping and number formats are the library's. Must not know which families exist: that is the
//! roles' (`docs/metrics.md`).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

/// One metric with all its label sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The name as it is scraped: `[a-z_]+`, with the unit, and for a counter with `_total`.
    pub name: &'static str,
    /// One sentence, on one line.
    pub help: &'static str,
    /// How its values are to be read.
    pub kind: Kind,
    /// One for each label set. A family without samples is still described.
    pub samples: Vec<Sample>,
}

/// How the values of a family are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations counted in buckets.
    Histogram,
}

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name and value of each label; the same names in the same order in all samples of a family.
    pub labels: Vec<(&'static str, String)>,
    /// The value. A histogram in a counter's or gauge's family, or the reverse, is left out.
    pub value: Value,
}

/// The value of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Int(u64),
    /// Of a counter or gauge.
    Float(f64),
    /// Of a histogram.
    Histogram {
        /// Upper bound in seconds, rising, and how many observations fell into this bucket alone (**not**
        /// cumulative). No bucket for infinity: it gets what `count` has beyond the sum of these.
        buckets: Vec<(f64, u64)>,
        /// All observations added up, in seconds.
        sum: f64,
        /// How many observations there were. Where it lags behind the buckets, theirs is used.
        count: u64,
    },
}

impl Family {
    /// A family without samples.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// A family with one sample without labels.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, kind: Kind, value: Value) -> Self {
        Self { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
    }

    /// Adds a sample.
    pub fn push(&mut self, labels: Vec<(&'static str, String)>, value: Value) {
        self.samples.push(Sample { labels, value });
    }
}

/// The two text forms in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Prometheus,
}

impl Format {
    /// The form for an `Accept` header: `OpenMetrics` for those who name it (Prometheus does), the
    /// older form for all others.
    #[must_use]
    pub fn for_accept(accept: &str) -> Self {
        let names_it = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_open = parts
                .next()
                .is_some_and(|t| t.eq_ignore_ascii_case("application/openmetrics-text"));
            is_open && !parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        });
        if names_it { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of a reply in this form.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The families as text.
#[must_use]
pub fn encode(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families { families, format }));
    let mut page = String::new();
    // Writing into a String does not fail.
    let _ = text::encode_registry(&mut page, &registry);
    if format == Format::OpenMetrics {
        let _ = text::encode_eof(&mut page);
    }
    page
}

#[derive(Debug)]
struct Families {
    families: Vec<Family>,
    format: Format,
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.families {
            let (name, kind) = described(family, self.format);
            let mut metric = encoder.encode_descriptor(&name, family.help, None, kind)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    encode_value(&mut metric, &sample.value, family.kind, self.format)?;
                } else {
                    let labels = sample.labels.as_slice();
                    let mut labelled = metric.encode_family(&labels)?;
                    encode_value(&mut labelled, &sample.value, family.kind, self.format)?;
                }
            }
        }
        Ok(())
    }
}

/// The name and type of a family's `# HELP` and `# TYPE` lines. `OpenMetrics` names a counter there
/// without its `_total`, the older form with it.
fn described(family: &Family, format: Format) -> (String, MetricType) {
    match (family.kind, format) {
        (Kind::Counter, Format::OpenMetrics) => {
            (counter_stem(family.name).to_owned(), MetricType::Counter)
        }
        (Kind::Counter, Format::Prometheus) => {
            (format!("{}_total", counter_stem(family.name)), MetricType::Counter)
        }
        (Kind::Gauge, _) => (family.name.to_owned(), MetricType::Gauge),
        (Kind::Histogram, _) => (family.name.to_owned(), MetricType::Histogram),
    }
}

fn counter_stem(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

type NoExemplar<'a> = Option<&'a Exemplar<[(&'static str, &'static str); 0], f64>>;

fn encode_value(
    metric: &mut MetricEncoder<'_>,
    value: &Value,
    kind: Kind,
    format: Format,
) -> fmt::Result {
    let adds_total = kind == Kind::Counter && format == Format::OpenMetrics;
    match value {
        Value::Histogram { buckets, sum, count } if kind == Kind::Histogram => {
            let buckets = with_infinity(buckets, *count);
            let count = buckets.iter().map(|(_, n)| n).sum();
            metric.encode_histogram::<[(&str, &str); 0]>(*sum, count, &buckets, None)
        }
        // A gauge is written under the family's own name, which in the older form ends in `_total` already.
        Value::Int(n) if adds_total => metric.encode_counter(n, None as NoExemplar<'_>),
        Value::Float(n) if adds_total => metric.encode_counter(n, None as NoExemplar<'_>),
        Value::Int(n) if kind != Kind::Histogram => metric.encode_gauge(n),
        Value::Float(n) if kind != Kind::Histogram => metric.encode_gauge(n),
        _ => Ok(()),
    }
}

/// The buckets with one for infinity, which takes what the others do not explain of `count`.
fn with_infinity(buckets: &[(f64, u64)], count: u64) -> Vec<(f64, u64)> {
    let mut all: Vec<(f64, u64)> = buckets.to_vec();
    let counted: u64 = all.iter().map(|(_, n)| n).sum();
    let beyond = count.saturating_sub(counted);
    match all.last_mut() {
        Some((upper, n)) if *upper == f64::INFINITY => *n += beyond,
        _ => all.push((f64::INFINITY, beyond)),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(labels: &[(&'static str, &str)], value: Value) -> Sample {
        Sample { labels: labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(), value }
    }

    fn families() -> Vec<Family> {
        vec![
            Family {
                name: "cloverleaf_requests_total",
                help: "Requests answered.",
                kind: Kind::Counter,
                samples: vec![
                    sample(&[("listener", "web"), ("class", "2xx")], Value::Int(7)),
                    sample(&[("listener", "a\"b\\c\nd"), ("class", "5xx")], Value::Int(u64::MAX)),
                ],
            },
            Family::single("cloverleaf_config_valid", "1 if so.", Kind::Gauge, Value::Int(1)),
            Family::new("cloverleaf_endpoints", "Endpoints.", Kind::Gauge),
            Family {
                name: "cloverleaf_request_duration_seconds",
                help: "Time.",
                kind: Kind::Histogram,
                samples: vec![sample(
                    &[("rule", "r")],
                    Value::Histogram { buckets: vec![(0.005, 3), (1.0, 2)], sum: 4.25, count: 6 },
                )],
            },
        ]
    }

    #[test]
    fn openmetrics_text() {
        let expected = "\
# HELP cloverleaf_requests Requests answered.
# TYPE cloverleaf_requests counter
cloverleaf_requests_total{listener=\"web\",class=\"2xx\"} 7
cloverleaf_requests_total{listener=\"a\\\"b\\\\c\\nd\",class=\"5xx\"} 18446744073709551615
# HELP cloverleaf_config_valid 1 if so.
# TYPE cloverleaf_config_valid gauge
cloverleaf_config_valid 1
# HELP cloverleaf_endpoints Endpoints.
# TYPE cloverleaf_endpoints gauge
# HELP cloverleaf_request_duration_seconds Time.
# TYPE cloverleaf_request_duration_seconds histogram
cloverleaf_request_duration_seconds_sum{rule=\"r\"} 4.25
cloverleaf_request_duration_seconds_count{rule=\"r\"} 6
cloverleaf_request_duration_seconds_bucket{le=\"0.005\",rule=\"r\"} 3
cloverleaf_request_duration_seconds_bucket{le=\"1.0\",rule=\"r\"} 5
cloverleaf_request_duration_seconds_bucket{le=\"+Inf\",rule=\"r\"} 6
# EOF
";
        assert_eq!(encode(families(), Format::OpenMetrics), expected);
    }

    #[test]
    fn the_older_form_describes_a_counter_by_its_whole_name() {
        let page = encode(families(), Format::Prometheus);
        assert!(page.contains("# TYPE cloverleaf_requests_total counter\n"), "{page}");
        assert!(page.contains("\ncloverleaf_requests_total{listener=\"web\",class=\"2xx\"} 7\n"));
        assert!(page.contains("_bucket{le=\"+Inf\",rule=\"r\"} 6\n"));
        assert!(!page.contains("EOF") && !page.contains("_total_total"));
    }

    #[test]
    fn a_counter_gets_total_even_if_its_name_lacks_it() {
        let family = || vec![Family::single("x", "X.", Kind::Counter, Value::Float(0.5))];
        assert!(encode(family(), Format::OpenMetrics).contains("\nx_total 0.5\n"));
        assert!(encode(family(), Format::Prometheus).contains("\nx_total 0.5\n"));
    }

    #[test]
    fn buckets_never_go_down() {
        for (buckets, count, last) in [
            (vec![(0.1, 4), (0.2, 1)], 3, (f64::INFINITY, 0)),
            (vec![(0.1, 4), (f64::INFINITY, 1)], 7, (f64::INFINITY, 3)),
            (vec![], 0, (f64::INFINITY, 0)),
        ] {
            assert_eq!(with_infinity(&buckets, count).last(), Some(&last), "{buckets:?} {count}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_left_out() {
        let family = Family::single("x", "X.", Kind::Histogram, Value::Int(1));
        assert_eq!(encode(vec![family], Format::Prometheus), "# HELP x X.\n# TYPE x histogram\n");
    }

    #[test]
    fn openmetrics_goes_to_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text; q=0, text/plain", Format::Prometheus),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::for_accept(accept), format, "{accept}");
        }
    }
}
