//! From what happened to lines: the words of `OpenFaaS`'s watchdogs, and the form in which lines lie on disk.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use http::StatusCode;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use runtime_wasm::{LogEntry, LogEvent, LogStyle};

/// The longest text of a line, in bytes; the rest is cut, and that is said. Any line is shorter than twice that.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// One line as it lies on disk.
pub(crate) struct Record<'a> {
    pub(crate) timestamp: Timestamp,
    /// What wrote it: the node's id.
    pub(crate) node: &'a str,
    pub(crate) text: &'a str,
}

impl<'a> Record<'a> {
    /// Microseconds since 1970, the node's id and the text, with a space between them.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let timestamp = Timestamp::from_microsecond(parts.next()?.parse().ok()?).ok()?;
        Some(Self { timestamp, node: parts.next()?, text: parts.next()? })
    }

    pub(crate) fn write(&self, out: &mut String) {
        let Self { timestamp, node, text } = self;
        // Writing to a string does not fail.
        let _ = write!(out, "{} {node} ", timestamp.as_microsecond());
        push_printable(out, text);
        out.push('\n');
    }
}

/// Makes lines, of the date and time of their entries.
pub(crate) struct Scribe {
    node: String,
    /// One moment by both clocks.
    now: (Timestamp, Instant),
    /// The last second that was written, and how.
    second: (i64, String),
    text: String,
}

impl Scribe {
    pub(crate) fn new(node: &str) -> Self {
        let now = (Timestamp::now(), Instant::now());
        Self { node: node.to_owned(), now, second: (i64::MIN, String::new()), text: String::new() }
    }

    /// Looks at the clock.
    pub(crate) fn begin(&mut self) {
        self.now = (Timestamp::now(), Instant::now());
    }

    /// Writes the lines of one entry.
    pub(crate) fn write(&mut self, out: &mut String, entry: &LogEntry, style: LogStyle) {
        let timestamp = self.timestamp(entry.at);
        if let LogEvent::Failed(text) = &entry.event {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                self.line(out, timestamp, true, |text| text.push_str(line));
            }
            return;
        }
        let dated = style.prefix || !matches!(entry.event, LogEvent::Line { .. });
        self.line(out, timestamp, dated, |text| describe(text, &entry.event, style));
    }

    /// Writes how many entries there was no room for.
    pub(crate) fn write_dropped(&mut self, out: &mut String, dropped: u64) {
        let timestamp = self.now.0;
        self.line(out, timestamp, true, |text| {
            let _ = write!(text, "{dropped} lines were dropped: there were more than could be written");
        });
    }

    fn line(&mut self, out: &mut String, timestamp: Timestamp, dated: bool, say: impl FnOnce(&mut String)) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if dated {
            text.push_str(self.date(timestamp));
        }
        say(&mut text);
        Record { timestamp, node: &self.node, text: &text }.write(out);
        self.text = text;
    }

    /// As Go's `log` has it, which the watchdogs use. Theirs is the local time of a container, which is UTC.
    fn date(&mut self, timestamp: Timestamp) -> &str {
        let (second, date) = &mut self.second;
        if *second != timestamp.as_second() {
            let time = timestamp.to_zoned(TimeZone::UTC);
            date.clear();
            let _ = write!(
                date,
                "{:04}/{:02}/{:02} {:02}:{:02}:{:02} ",
                time.year(),
                time.month(),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            );
            *second = timestamp.as_second();
        }
        date
    }

    fn timestamp(&self, at: Instant) -> Timestamp {
        let (timestamp, now) = self.now;
        let ago = SignedDuration::try_from(now.saturating_duration_since(at)).unwrap_or_default();
        let ahead = SignedDuration::try_from(at.saturating_duration_since(now)).unwrap_or_default();
        timestamp.checked_sub(ago).and_then(|then| then.checked_add(ahead)).unwrap_or(timestamp)
    }
}

/// What the watchdogs say (`OpenFaaS` classic-watchdog and of-watchdog).
fn describe(text: &mut String, event: &LogEvent, style: LogStyle) {
    // Writing to a string does not fail.
    let _ = match event {
        LogEvent::Forking => write!(text, "Forking fprocess."),
        LogEvent::Wrote { bytes, took } => {
            write!(text, "Wrote {bytes} Bytes - Duration: {:.6}s", took.as_secs_f64())
        }
        LogEvent::Answered { method, target, status, bytes, took, call_id } => {
            let _ = write!(text, "{method} {target} - {} - ContentLength: ", Status(*status));
            push_size(text, *bytes);
            let _ = write!(text, " ({:.4}s)", took.as_secs_f64());
            call_id.as_ref().map_or(Ok(()), |call_id| write!(text, " [{call_id}]"))
        }
        LogEvent::KilledCommand { command } => write!(text, "Killing process: {command}"),
        LogEvent::KilledHandler { limit } => {
            text.push_str("Upstream HTTP killed due to exec_timeout: ");
            push_duration(text, *limit);
            Ok(())
        }
        LogEvent::Line { stream, text: line } if style.prefix => write!(text, "{stream}: {line}"),
        LogEvent::Line { text: line, .. } | LogEvent::Failed(line) => write!(text, "{line}"),
    };
}

/// A status as Go has it: with its words, where it has any.
struct Status(StatusCode);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.as_str())?;
        self.0.canonical_reason().map_or(Ok(()), |words| write!(f, " {words}"))
    }
}

/// A size in decimal units and four digits, as of-watchdog has it: `89B`, `1.692kB`.
fn push_size(text: &mut String, bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1000.0, larger);
    }
    let digits: usize = if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let number = format!("{size:.digits$}");
    text.push_str(number.trim_end_matches('0').trim_end_matches('.'));
    text.push_str(unit);
}

/// A time as Go writes it: `300ms`, `2s`, `1m30s`.
fn push_duration(text: &mut String, duration: Duration) {
    let seconds = duration.as_secs();
    let part = f64::from(duration.subsec_millis()) / 1000.0;
    let _ = match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => write!(text, "{}ms", duration.as_millis()),
        (0, 0, seconds) => write!(text, "{}s", seconds as f64 + part),
        (0, minutes, seconds) => write!(text, "{minutes}m{}s", seconds as f64 + part),
        (hours, minutes, seconds) => write!(text, "{hours}h{minutes}m{}s", seconds as f64 + part),
    };
}

/// What would end, forge or hide a line is escaped.
fn push_printable(out: &mut String, text: &str) {
    let end = out.len() + MAX_TEXT_BYTES;
    for char in text.chars() {
        if out.len() >= end {
            out.push_str(" [cut]");
            return;
        }
        if is_plain(char) { out.push(char) } else { out.extend(char.escape_unicode()) }
    }
}

/// Neither a control character, nor a break of a line or a direction of writing.
fn is_plain(char: char) -> bool {
    let breaks = matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char == '\t' || !(char.is_control() || breaks)
}

#[cfg(test)]
mod tests {
    use http::{Method, uri::PathAndQuery};
    use runtime_api::CallId;

    use super::*;

    const STYLE: LogStyle = LogStyle { prefix: true, call_id: false };

    /// The texts of an entry's lines, without the date that each begins with.
    fn texts(event: LogEvent, style: LogStyle) -> Vec<String> {
        let (mut scribe, mut out) = (Scribe::new("0123abcd"), String::new());
        scribe.write(&mut out, &LogEntry { at: Instant::now(), event }, style);
        let text = |line: &str| {
            let record = Record::parse(line).unwrap();
            assert_eq!(record.node, "0123abcd");
            let date = record.timestamp.strftime("%Y/%m/%d %H:%M:%S ").to_string();
            record.text.strip_prefix(&date).unwrap_or(record.text).to_owned()
        };
        out.lines().map(text).collect()
    }

    fn answered(status: u16, bytes: u64, call_id: Option<CallId>) -> LogEvent {
        LogEvent::Answered {
            method: Method::POST,
            target: PathAndQuery::from_static("/a/b%20c?q=1"),
            status: StatusCode::from_u16(status).unwrap(),
            bytes,
            took: Duration::from_micros(2_210),
            call_id,
        }
    }

    #[test]
    fn the_words_are_the_watchdogs() {
        let took = Duration::from_micros(2871);
        for (event, expected) in [
            (LogEvent::Forking, "Forking fprocess."),
            (LogEvent::Wrote { bytes: 12, took }, "Wrote 12 Bytes - Duration: 0.002871s"),
            (answered(404, 89, None), "POST /a/b%20c?q=1 - 404 Not Found - ContentLength: 89B (0.0022s)"),
            (
                answered(200, 1692, Some(CallId::new("id"))),
                "POST /a/b%20c?q=1 - 200 OK - ContentLength: 1.692kB (0.0022s) [id]",
            ),
            (answered(299, 0, None), "POST /a/b%20c?q=1 - 299 - ContentLength: 0B (0.0022s)"),
            (LogEvent::KilledCommand { command: "cat -".into() }, "Killing process: cat -"),
            (
                LogEvent::KilledHandler { limit: Duration::from_secs(2) },
                "Upstream HTTP killed due to exec_timeout: 2s",
            ),
            (LogEvent::Line { stream: "stderr", text: "a\tb".into() }, "stderr: a\tb"),
        ] {
            assert_eq!(texts(event, STYLE), [expected]);
        }
    }

    #[test]
    fn a_function_may_have_its_lines_as_they_are() {
        let (mut scribe, mut out) = (Scribe::new("n"), String::new());
        let event = LogEvent::Line { stream: "stdout", text: "mine".into() };
        scribe.write(&mut out, &LogEntry { at: Instant::now(), event }, LogStyle { prefix: false, ..STYLE });
        assert_eq!(Record::parse(out.trim_end()).unwrap().text, "mine");
    }

    #[test]
    fn sizes_and_times_are_written_as_in_go() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345, "12.35kB"),
            (123_456, "123.5kB"),
            (2_000_000, "2MB"),
        ] {
            let mut text = String::new();
            push_size(&mut text, bytes);
            assert_eq!(text, expected);
        }
        for (millis, expected) in
            [(300, "300ms"), (1500, "1.5s"), (60_000, "1m0s"), (90_500, "1m30.5s"), (3_600_000, "1h0m0s")]
        {
            let mut text = String::new();
            push_duration(&mut text, Duration::from_millis(millis));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn no_text_can_end_forge_or_hide_a_line() {
        let forged = "a\n1 n forged\r\u{1b}[2J\u{85}\u{202e}\u{2028}z";
        let texts = texts(LogEvent::Line { stream: "stdout", text: forged.into() }, STYLE);
        let expected = r"stdout: a\u{a}1 n forged\u{d}\u{1b}[2J\u{85}\u{202e}\u{2028}z";
        assert_eq!(texts, [expected]);
    }

    #[test]
    fn a_line_is_cut_at_a_length_and_a_failure_has_lines() {
        let long = texts(LogEvent::Line { stream: "stdout", text: "\u{1}é".repeat(20_000) }, STYLE);
        assert!(long.len() == 1 && long[0].len() < MAX_TEXT_BYTES + 64 && long[0].ends_with(" [cut]"));
        let failed = texts(LogEvent::Failed("trapped:\n\n  at 1\n  at 2\n".into()), STYLE);
        assert_eq!(failed, ["trapped:", "  at 1", "  at 2"]);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for line in ["", "1", "1 n", "x n text", "99999999999999999999 n text"] {
            assert!(Record::parse(line).is_none(), "{line:?}");
        }
        assert_eq!(Record::parse("1 n ").unwrap().text, "");
    }
}
