//! Formats an event as one line of the log: a JSON object for machines, or text for people, each with the id and the
//! trace of the request that it is about.
//!
//! | key of the JSON object | what |
//! |---|---|
//! | `timestamp` | RFC 3339, UTC, with microseconds |
//! | `level` | `ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE` |
//! | `message`, and more | the event's own fields, in its order |
//! | `target` | where in the program; `audit` for changes of payouts |
//! | `request_id`, `trace_id` | the request that the program worked for, if it worked for one |

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::context::RequestContext;
use payout_domain::terminal;

/// Capacity for a line with many fields, so that writing it needs no reallocation.
const USUAL_BYTES: usize = 768;

const TIMESTAMP: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// One JSON object.
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
        let mut line = Vec::with_capacity(USUAL_BYTES);
        write(event, &mut line).map_err(|_| fmt::Error)?;
        let line = std::str::from_utf8(&line).map_err(|_| fmt::Error)?;
        writer.write_str(&terminal::json(line))?;
        writer.write_char('\n')
    }
}

fn write(event: &Event<'_>, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(None)?;
    let now = TIMESTAMP.timestamp_to_string(&Timestamp::now());
    object.serialize_entry("timestamp", &now)?;
    object.serialize_entry("level", event.metadata().level().as_str())?;
    let mut members = Members {
        object: &mut object,
        written: Ok(()),
    };
    event.record(&mut members);
    members.written?;
    object.serialize_entry("target", event.metadata().target())?;
    let told = RequestContext::tell(|request_id, trace_id| {
        object.serialize_entry("request_id", request_id)?;
        object.serialize_entry("trace_id", trace_id)
    });
    told.unwrap_or(Ok(()))?;
    object.end()
}

/// The library's text, followed by the request's ids.
pub(super) struct Text(pub(super) Format<Compact>);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        let inner = Writer::new(&mut line);
        self.0.format_event(context, inner, event)?;
        writer.write_str(&terminal::coloured(line.trim_end_matches('\n')))?;
        let told = RequestContext::tell(|request_id, trace_id| {
            write!(writer, " request_id={request_id:?} trace_id={trace_id}")
        });
        told.unwrap_or(Ok(()))?;
        writer.write_char('\n')
    }
}

/// An event's fields as members of an object.
struct Members<'a, M: SerializeMap> {
    object: &'a mut M,
    written: Result<(), M::Error>,
}

impl<M: SerializeMap> Members<'_, M> {
    fn write(&mut self, field: &Field, value: &(impl Serialize + ?Sized)) {
        if self.written.is_ok() {
            self.written = self.object.serialize_entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for Members<'_, M> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &Shown(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value);
    }
}

/// A value that can always be serialized: the library panics if a value's formatting fails midway.
struct Shown<'a>(&'a dyn fmt::Debug);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0).or_else(|_| f.write_str("(cannot be shown)"))
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::DefaultFields;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::propagation::X_REQUEST_ID;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What some work for a request logs.
    fn logged(
        format: impl FormatEvent<tracing_subscriber::Registry, DefaultFields> + Send + Sync + 'static,
        work: fn(),
    ) -> String {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(format)
            .with_ansi(false)
            .with_writer(lines.clone());
        let mut headers = http::HeaderMap::new();
        headers.insert(X_REQUEST_ID, http::HeaderValue::from_static("r-1"));
        let context = RequestContext::of(&mut headers, None);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            futures_util::FutureExt::now_or_never(context.within(async { work() })).unwrap();
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_on_one_line_whatever_is_in_it() {
        let line = logged(Json, || {
            let hostile = "a \"quoted\"\nsecond line \u{1b}[31m 中文";
            let none: Option<&str> = None;
            tracing::warn!(target: "audit", text = hostile, shown = %hostile, debug = ?Some(1), least = i64::MIN, most = u64::MAX, yes = true, none, "what {}", "happened");
        });
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        let hostile = "a \"quoted\"\nsecond line \u{1b}[31m 中文";
        for (name, value) in [
            ("level", "WARN".into()),
            ("message", "what happened".into()),
            ("text", hostile.into()),
            ("shown", hostile.into()),
            ("debug", "Some(1)".into()),
            ("least", i64::MIN.into()),
            ("most", u64::MAX.into()),
            ("yes", true.into()),
            ("none", serde_json::Value::Null),
            ("target", "audit".into()),
            ("request_id", "r-1".into()),
        ] {
            assert_eq!(object[name], value, "{name}: {line}");
        }
        assert_eq!(object["trace_id"].as_str().map(str::len), Some(32));
        let timestamp = object["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
        assert!(timestamp.parse::<Timestamp>().is_ok());
    }

    #[test]
    fn what_cannot_be_shown_to_its_end_says_so() {
        let line = logged(Json, || {
            struct Breaks;
            impl fmt::Display for Breaks {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("half ")?;
                    Err(fmt::Error)
                }
            }
            tracing::info!(broken = %Breaks, after = 1, "told");
        });
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["broken"], "half (cannot be shown)", "{line}");
        assert_eq!(object["after"], 1, "{line}");
    }

    #[test]
    fn a_text_line_names_its_request_too() {
        let text = Text(tracing_subscriber::fmt::format().compact().with_ansi(false));
        let line = logged(text, || tracing::info!(order = "A1", "paid"));
        assert!(
            line.contains("paid") && line.contains("A1") && line.contains(" request_id=\"r-1\" trace_id="),
            "{line}"
        );
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
    }
}
