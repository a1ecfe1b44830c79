//! A line of the program's log as JSON: time, level, what the event says, and where it comes from.
//!
//! An error is written with its causes, `outermost: cause: cause`, since each level of it says only its own part. Must
//! not know what is logged.

use std::error::Error;
use std::fmt::{self, Debug, Write};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Causes of one error that are written at most.
const CAUSES_MAX: usize = 16;

/// One object a line.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line { text: String::from("{"), failed: false };
        line.put("timestamp", time);
        line.put("level", event.metadata().level().as_str());
        event.record(&mut line);
        line.put("target", event.metadata().target());
        if line.failed {
            return Err(fmt::Error);
        }
        writeln!(writer, "{}}}", line.text)
    }
}

/// What is written of a line so far.
struct Line {
    text: String,
    failed: bool,
}

impl Line {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        let comma = if self.text.len() > 1 { "," } else { "" };
        let written = write!(self.text, "{comma}{}:{}", Value::from(name), value.into());
        self.failed |= written.is_err();
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.take(CAUSES_MAX).fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading \"a\"")]
    struct Reading(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(say: impl FnOnce()) -> Value {
        let written = Written::default();
        let out = written.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || out.clone());
        tracing::subscriber::with_default(builder.event_format(Json).finish(), say);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_error_is_written_with_its_causes() {
        let error = Reading(io::Error::other(Reading(io::Error::other("line\nbreak"))));
        let line = logged(|| tracing::warn!(error = &error as &dyn Error, "not \"read\""));
        assert_eq!(line["error"], "reading \"a\": reading \"a\": line\nbreak");
        assert_eq!(line["message"], "not \"read\"");
        assert_eq!(line["level"], "WARN");
        assert!(line["target"].as_str().unwrap().starts_with("cloverleaf"));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn values_keep_their_types() {
        let line = logged(|| {
            tracing::info!(count = 3, below = -3, share = 0.5, on = true, what = ?Some(1), no = f64::NAN);
        });
        assert_eq!(line["count"], 3);
        assert_eq!(line["below"], -3);
        assert_eq!(line["share"], 0.5);
        assert_eq!(line["on"], true);
        assert_eq!(line["what"], "Some(1)");
        assert!(line["no"].is_null());
    }
}
