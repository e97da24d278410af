//! The log as lines of text: the sentence, followed by the fields that the sentence does not contain.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::wire::one_line;

/// Writes `TIME LEVEL MODULE: SENTENCE FIELD=VALUE ...`. The journal and JSON have all fields beside the sentence; here
/// each value appears once. The lines of a session also have the fields of its span.
pub struct Sentences;

/// Stores the fields of a span, each on a separate line, for the lines of the log that belong to it.
pub struct PlainFields;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(kept) = span.extensions().get::<FormattedFields<N>>() {
                line.fields.extend(kept.fields.lines().filter_map(|field| {
                    let (name, value) = field.split_once('=')?;
                    Some((name.to_owned(), value.to_owned()))
                }));
            }
        }
        SystemTime.format_time(&mut writer)?;
        let module = line.module.as_deref().unwrap_or_else(|| event.metadata().target());
        write!(writer, " {:>5} {module}: {}", event.metadata().level(), line.sentence)?;
        let mut sentence = line.sentence.to_ascii_lowercase();
        for (name, value) in &line.fields {
            match value {
                _ if take(&mut sentence, &value.to_ascii_lowercase()) => {}
                value if value.is_empty() || value.contains([' ', '"', '=']) => {
                    write!(writer, " {name}=\"{}\"", value.replace('"', "\\\""))?;
                }
                value => write!(writer, " {name}={value}")?,
            }
        }
        writeln!(writer)
    }
}

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        line.fields.iter().try_for_each(|(name, value)| writeln!(writer, "{name}={value}"))
    }
}

/// Removes a value from a sentence that contains it as a whole word, and returns whether it did. So a number in the
/// sentence counts for one field only.
fn take(sentence: &mut String, value: &str) -> bool {
    let is_whole = |at: usize| {
        let part = |range| sentence.get(range).unwrap_or_default();
        let (before, after) = (part(0..at), part(at + value.len()..sentence.len()));
        let joins = |c: char| matches!(c, '.' | '-' | '_' | '@');
        let goes_on = after.trim_start_matches(joins).starts_with(char::is_alphanumeric);
        !before.ends_with(|c: char| c.is_alphanumeric() || joins(c)) && !goes_on
    };
    let found = sentence.match_indices(value).map(|(at, _)| at).find(|at| !value.is_empty() && is_whole(*at));
    if let Some(at) = found {
        sentence.replace_range(at..at + value.len(), "|");
    }
    found.is_some()
}

#[derive(Default)]
struct Line {
    sentence: String,
    fields: Vec<(String, String)>,
    /// The fields of libraries that use the crate `log`.
    module: Option<String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = one_line(value);
        match field.name() {
            "message" => self.sentence = value,
            "log.target" => self.module = Some(value),
            // The journal's field, and the place in a library from which a line comes.
            name if name == "message_id" || name.starts_with("log.") => {}
            name => self.fields.push((name.to_owned(), value)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, read_to_string};

    use tracing::{info, info_span};

    use super::*;

    /// The logged line, without the time and the module.
    fn line(log: impl FnOnce()) -> String {
        let mut file = tempfile::tempfile().unwrap();
        let plain = tracing_subscriber::fmt().fmt_fields(PlainFields).event_format(Sentences);
        tracing::subscriber::with_default(plain.with_writer(file.try_clone().unwrap()).finish(), log);
        file.rewind().unwrap();
        let text = read_to_string(file).unwrap();
        let text = text.strip_suffix('\n').expect("a whole line");
        text.split_once("log::plain::tests: ").expect("its module").1.to_owned()
    }

    #[test]
    fn a_value_in_the_sentence_is_not_repeated() {
        let whose = "ann@example.test";
        assert_eq!(
            line(|| info!(account = whose, milliseconds = 43, uid = 1000, "{whose} logged in in 43 ms")),
            "ann@example.test logged in in 43 ms uid=1000"
        );
        assert_eq!(line(|| info!(address = %"[::1]:1143", "listening on [::1]:1143")), "listening on [::1]:1143");
        assert_eq!(line(|| info!(why = "No \"room\".", none = None::<u8>, "no: No \"room\".")), "no: No \"room\".");
        assert_eq!(line(|| info!(uid = 1, message_id = "e6c4", "ended")), "ended uid=1");
    }

    #[test]
    fn a_number_in_the_sentence_counts_for_one_field() {
        assert_eq!(line(|| info!(milliseconds = 0, uid = 0, "logged in in 0 ms")), "logged in in 0 ms uid=0");
        assert_eq!(line(|| info!(up = 5, down = 5, seconds = 5, "5 bytes up, 5 down")), "5 bytes up, 5 down seconds=5");
    }

    #[test]
    fn a_part_of_a_word_or_number_does_not_count() {
        let pairs = [("0", "from 127.0.0.1"), ("4", "in 43 ms"), ("ann", "joanne"), ("3", "in 0.3 s"), ("a", "a@b")];
        for (value, sentence) in pairs {
            assert_eq!(line(|| info!(value, "{sentence}")), format!("{sentence} value={value}"));
        }
        assert_eq!(line(|| info!(empty = "", "word")), "word empty=\"\"");
        assert_eq!(line(|| info!(value = "end", "this is the end.")), "this is the end.");
    }

    #[test]
    fn a_line_has_the_fields_of_its_session() {
        let session = || info_span!("session", protocol = "imap", security = "none", peer = "127.0.0.1:5000");
        assert_eq!(
            line(|| session().in_scope(|| info!(uid = 7, "logged in by IMAP from 127.0.0.1"))),
            "logged in by IMAP from 127.0.0.1 uid=7 security=none peer=127.0.0.1:5000"
        );
    }

    #[test]
    fn a_value_with_a_line_break_stays_on_its_line() {
        assert_eq!(line(|| info!(why = "a\nb c", "é\r\n\u{1b}[31m{}", "x")), "é\\r\\n\\u{1b}[31mx why=\"a\\nb c\"");
        assert_eq!(line(|| info!(error = %"a\nb", "no")), "no error=a\\nb");
        assert_eq!(line(|| info_span!("s", v = "1\nw=2").in_scope(|| info!("x"))), "x v=\"1\\nw=2\"");
    }
}
