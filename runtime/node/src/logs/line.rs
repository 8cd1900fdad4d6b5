//! From what happened to lines: the words of `OpenFaaS`'s watchdogs, and the form in which lines lie on disk.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use itoa::{Buffer, Integer};
use jiff::{Timestamp, tz::TimeZone};
use runtime_wasm::{LogEntry, LogEvent, LogStyle};

/// The longest text of a line, in bytes; the rest is cut, and that is said. Any line is shorter than twice that.
const MAX_TEXT_BYTES: usize = 16 << 10;

const MICROS_A_SECOND: i64 = 1_000_000;

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
}

/// Makes lines, of the date and time of their entries.
pub(crate) struct Scribe {
    node: String,
    /// One moment by both clocks: microseconds since 1970, and the other.
    now: (i64, Instant),
    /// The last second that was written, and how.
    second: (i64, String),
    text: String,
}

impl Scribe {
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), now: now(), second: (i64::MIN, String::new()), text: String::new() }
    }

    /// Looks at the clock.
    pub(crate) fn begin(&mut self) {
        self.now = now();
    }

    /// Writes the lines of one entry.
    pub(crate) fn write(&mut self, out: &mut String, entry: &LogEntry, style: LogStyle) {
        let micros = self.micros(entry.at);
        if let LogEvent::Failed(text) = &entry.event {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                self.line(out, micros, true, |text| text.push_str(line));
            }
            return;
        }
        let dated = style.prefix || !matches!(entry.event, LogEvent::Line { .. });
        self.line(out, micros, dated, |text| describe(text, &entry.event, style));
    }

    /// Writes how many entries there was no room for.
    pub(crate) fn write_dropped(&mut self, out: &mut String, dropped: u64) {
        let (micros, _) = self.now;
        self.line(out, micros, true, |text| {
            push_number(text, dropped);
            text.push_str(" lines were dropped: there were more than could be written");
        });
    }

    /// A line as [`Record::parse`] reads it.
    fn line(&mut self, out: &mut String, micros: i64, dated: bool, say: impl FnOnce(&mut String)) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if dated {
            text.push_str(self.date(micros));
        }
        say(&mut text);
        push_number(out, micros);
        push_all(out, [" ", &self.node, " "]);
        push_printable(out, &text);
        out.push('\n');
        self.text = text;
    }

    /// As Go's `log` has it, which the watchdogs use. Theirs is the local time of a container, which is UTC.
    fn date(&mut self, micros: i64) -> &str {
        let (second, date) = &mut self.second;
        if *second != micros.div_euclid(MICROS_A_SECOND) {
            *second = micros.div_euclid(MICROS_A_SECOND);
            let time = Timestamp::from_second(*second).unwrap_or_default().to_zoned(TimeZone::UTC);
            *date = time.strftime("%Y/%m/%d %H:%M:%S ").to_string();
        }
        date
    }

    fn micros(&self, at: Instant) -> i64 {
        let (micros, now) = self.now;
        match now.checked_duration_since(at) {
            Some(ago) => micros.saturating_sub_unsigned(ago.as_micros() as u64),
            None => micros.saturating_add_unsigned((at - now).as_micros() as u64),
        }
    }
}

fn now() -> (i64, Instant) {
    (Timestamp::now().as_microsecond(), Instant::now())
}

/// What the watchdogs say (`OpenFaaS` classic-watchdog and of-watchdog).
fn describe(text: &mut String, event: &LogEvent, style: LogStyle) {
    match event {
        LogEvent::Forking => text.push_str("Forking fprocess."),
        LogEvent::Wrote { bytes, took } => {
            text.push_str("Wrote ");
            push_number(text, *bytes);
            text.push_str(" Bytes - Duration: ");
            push_seconds::<6>(text, *took);
        }
        LogEvent::Answered { method, target, status, bytes, took, call_id } => {
            push_all(text, [method.as_str(), " ", target.as_str(), " - ", status.as_str()]);
            // As Go has it: with its words, where it has any.
            if let Some(words) = status.canonical_reason() {
                push_all(text, [" ", words]);
            }
            text.push_str(" - ContentLength: ");
            push_size(text, *bytes);
            text.push_str(" (");
            push_seconds::<4>(text, *took);
            text.push(')');
            if let Some(call_id) = call_id {
                push_all(text, [" [", call_id.as_str(), "]"]);
            }
        }
        LogEvent::KilledCommand { command } => push_all(text, ["Killing process: ", command]),
        LogEvent::KilledHandler { limit } => {
            text.push_str("Upstream HTTP killed due to exec_timeout: ");
            push_duration(text, *limit);
        }
        LogEvent::Line { stream, text: line } if style.prefix => push_all(text, [stream, ": ", line]),
        LogEvent::Line { text: line, .. } | LogEvent::Failed(line) => text.push_str(line),
    }
}

fn push_all<const N: usize>(text: &mut String, parts: [&str; N]) {
    text.extend(parts);
}

fn push_number(text: &mut String, number: impl Integer) {
    text.push_str(Buffer::new().format(number));
}

/// Seconds with that many digits after the point, rounded: `0.0022s`.
fn push_seconds<const DIGITS: u32>(text: &mut String, time: Duration) {
    let (one, unit) = (10_u64.pow(DIGITS), 10_u64.pow(9 - DIGITS));
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let rounded = nanos.saturating_add(unit / 2) / unit;
    push_number(text, rounded / one);
    // A one keeps the leading zeroes, and gives its place to the point.
    let point = text.len();
    push_number(text, one + rounded % one);
    text.replace_range(point..=point, ".");
    text.push('s');
}

/// A size in decimal units and four digits, as of-watchdog has it: `89B`, `1.692kB`.
fn push_size(text: &mut String, bytes: u64) {
    if bytes < 1000 {
        push_number(text, bytes);
        return text.push('B');
    }
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
    // To the end in any case: without a way out on the way, many bytes are looked at at once.
    let escaped = text.bytes().fold(false, |escaped, byte| escaped | !matches!(byte, b'\t' | b' '..=b'~'));
    if !escaped && text.len() <= MAX_TEXT_BYTES {
        return out.push_str(text);
    }
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
    use http::{Method, StatusCode, uri::PathAndQuery};
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
        for (nanos, expected) in [
            (0, "0.000000s 0.0000s"),
            (49_999, "0.000050s 0.0000s"),
            (50_499, "0.000050s 0.0001s"),
            (999_999_500, "1.000000s 1.0000s"),
            (61_002_003_000, "61.002003s 61.0020s"),
            (u64::MAX, "18446744073.709551s 18446744073.7095s"),
        ] {
            let (mut text, time) = (String::new(), Duration::from_nanos(nanos));
            push_seconds::<6>(&mut text, time);
            text.push(' ');
            push_seconds::<4>(&mut text, time);
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
