//! What guests write for their authors, as events with the function and the call, and in the function's log.

use std::{
    error::Error as _,
    fmt::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use runtime_api::{CallId, Error, FunctionName};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

use crate::function_log::{FunctionLog, LogEvent};

/// What one call may log, in bytes; the rest is dropped, and that is said.
const MAX_CALL_BYTES: usize = 64 << 10;

/// What a line costs besides its text: even an empty one is an event.
const LINE_COST_BYTES: usize = 32;

/// The longest line; longer ones are broken.
const MAX_LINE_BYTES: usize = 4 << 10;

/// The longest report of why a call failed: a guest chooses the names in a trap's backtrace, and their length.
const MAX_REPORT_BYTES: usize = 8 << 10;

/// What remains for a report where a call has logged all that it may: the first words say what it was.
const MIN_REPORT_BYTES: usize = 512;

/// Said once, and then no more of the call's output is looked at.
const REST_DROPPED: &str = "the rest of this call's output is dropped";

/// Where one call's output for its author goes.
#[derive(Clone)]
pub(crate) struct GuestLog {
    call: Arc<CallLog>,
}

struct CallLog {
    function: FunctionName,
    call_id: CallId,
    /// The function's log, where somebody keeps it.
    kept: Option<Arc<FunctionLog>>,
    left_bytes: Mutex<usize>,
}

impl CallLog {
    /// Whether all further output is dropped; then it is not even looked at.
    fn is_full(&self) -> bool {
        *self.left_bytes.lock().unwrap_or_else(PoisonError::into_inner) == 0
    }
}

impl GuestLog {
    pub(crate) fn new(function: &FunctionName, call_id: &CallId, kept: Option<Arc<FunctionLog>>) -> Self {
        let call = CallLog {
            function: function.clone(),
            call_id: call_id.clone(),
            kept,
            left_bytes: Mutex::new(MAX_CALL_BYTES),
        };
        Self { call: Arc::new(call) }
    }

    /// A stream whose lines become events.
    pub(crate) fn stream(&self, name: &'static str) -> LogStream {
        LogStream { lines: Arc::new(Mutex::new(self.lines(name))) }
    }

    /// The same for who needs no clones of it.
    pub(crate) fn lines(&self, name: &'static str) -> Lines {
        Lines { call: self.call.clone(), name, line: Vec::new() }
    }

    /// Tells that a command is about to run.
    pub(crate) fn forking(&self, start: Instant) {
        if let Some(kept) = &self.call.kept {
            kept.push_at(start, LogEvent::Forking);
        }
    }

    /// Tells that a command has answered.
    pub(crate) fn wrote(&self, bytes: u64, start: Instant, took: Duration) {
        if let Some(kept) = &self.call.kept {
            kept.push_at(start + took, LogEvent::Wrote { bytes, took });
        }
    }

    /// Tells why a command trapped, whose answer says only that it did.
    pub(crate) fn trapped(&self, error: &wasmtime::Error) {
        let CallLog { function, call_id, .. } = &*self.call;
        let report = self.report(format_args!("the function trapped: {error:?}"));
        tracing::warn!(%function, %call_id, cause = report, "function trapped");
        self.keep(|| LogEvent::Failed(report));
    }

    /// Tells of a command that was stopped.
    pub(crate) fn killed(&self, args: &[String], limit: Duration) {
        self.keep(|| LogEvent::KilledCommand { command: args.join(" ") });
        self.warn_late(limit);
    }

    /// Tells of a handler that was stopped.
    pub(crate) fn late(&self, limit: Duration) {
        self.keep(|| LogEvent::KilledHandler { limit });
        self.warn_late(limit);
    }

    fn warn_late(&self, limit: Duration) {
        let CallLog { function, call_id, .. } = &*self.call;
        tracing::warn!(%function, %call_id, ?limit, "function was stopped at its deadline");
    }

    /// Tells of a failure that came too late for the answer's status.
    pub(crate) fn failed(&self, error: &Error) {
        let CallLog { function, call_id, .. } = &*self.call;
        let report = self.report(format_args!("{}", WithCauses(error)));
        tracing::warn!(%function, %call_id, cause = report, "function failed after its answer began");
        self.keep(|| LogEvent::Failed(report));
    }

    /// A report, as long as what the call may still log.
    fn report(&self, text: fmt::Arguments<'_>) -> String {
        let mut left = self.call.left_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let (report, cost) = cut(text, (*left).clamp(MIN_REPORT_BYTES, MAX_REPORT_BYTES));
        *left = left.saturating_sub(cost);
        report
    }

    fn keep(&self, event: impl FnOnce() -> LogEvent) {
        if let Some(kept) = &self.call.kept {
            kept.push(event());
        }
    }
}

/// What there is to say of a failure that a guest has a part in, and so in its length.
pub(crate) fn report(text: fmt::Arguments<'_>) -> String {
    cut(text, MAX_REPORT_BYTES).0
}

/// The beginning of a text, of which each line costs as one that a guest writes, and what it cost. What is more is not
/// even made.
fn cut(text: fmt::Arguments<'_>, most_bytes: usize) -> (String, usize) {
    let mut cut = Cut { text: String::new(), left_bytes: most_bytes };
    if cut.write_fmt(text).is_err() {
        cut.text.push_str(" [cut]");
    }
    (cut.text, most_bytes - cut.left_bytes)
}

struct Cut {
    text: String,
    left_bytes: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let cost = if char == '\n' { LINE_COST_BYTES } else { char.len_utf8() };
            self.left_bytes = self.left_bytes.checked_sub(cost).ok_or(fmt::Error)?;
            self.text.push(char);
        }
        Ok(())
    }
}

/// An error and all that it came from.
pub(crate) struct WithCauses<'a>(pub(crate) &'a Error);

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Standard output or error of one call.
#[derive(Clone)]
pub(crate) struct LogStream {
    lines: Arc<Mutex<Lines>>,
}

/// What is written, in lines.
pub(crate) struct Lines {
    call: Arc<CallLog>,
    name: &'static str,
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // What is more than a call may log is not even looked at.
        let bytes = bytes.get(..MAX_CALL_BYTES).unwrap_or(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.call.is_full() {
                return;
            }
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            for part in text.chunks(MAX_LINE_BYTES) {
                if self.line.len() + part.len() > MAX_LINE_BYTES {
                    self.emit();
                }
                self.line.extend_from_slice(part);
            }
            if text.len() < piece.len() {
                self.emit();
            }
        }
    }

    fn emit(&mut self) {
        let line = std::mem::take(&mut self.line);
        let CallLog { function, call_id, kept, left_bytes } = &*self.call;
        let mut left = left_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return;
        }
        *left = left.saturating_sub(line.len() + LINE_COST_BYTES);
        let text = printable(&line);
        tracing::info!(target: "guest", %function, %call_id, stream = self.name, "{text}");
        if *left == 0 {
            tracing::warn!(target: "guest", %function, %call_id, "{REST_DROPPED}");
        }
        if let Some(kept) = kept {
            kept.push(LogEvent::Line { stream: self.name, text });
            if *left == 0 {
                kept.push(LogEvent::Failed(REST_DROPPED.into()));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.emit();
        }
    }
}

/// Control characters are escaped, so that a guest cannot forge or hide lines.
fn printable(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for char in String::from_utf8_lossy(line).chars() {
        if char.is_control() && char != '\t' { text.extend(char.escape_default()) } else { text.push(char) }
    }
    text
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 writes through this one, and it is not offered.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(MAX_CALL_BYTES)
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function_log::{LogEnd, LogQueue, LogStyle};

    fn log() -> (GuestLog, Arc<FunctionLog>) {
        let (function, style) =
            (FunctionName::parse("f").unwrap(), LogStyle { prefix: false, call_id: false });
        let kept = LogQueue::default().log(function.clone(), style, LogEnd::default());
        (GuestLog::new(&function, &CallId::new("1"), Some(kept.clone())), kept)
    }

    #[test]
    fn a_report_is_cut_and_is_a_part_of_what_a_call_may_log() {
        let (log, kept) = log();
        for name in ["x".repeat(1 << 20), "x\n".repeat(1 << 20)] {
            log.trapped(&wasmtime::Error::msg(name));
        }
        let charged = MAX_CALL_BYTES - *log.call.left_bytes.lock().unwrap();
        assert!((2 * MAX_REPORT_BYTES - 64..=2 * MAX_REPORT_BYTES).contains(&charged), "{charged}");
        log.lines("stderr").write(&b"line\n".repeat(MAX_CALL_BYTES));
        kept.take();
        log.trapped(&wasmtime::Error::msg("x".repeat(1 << 20)));
        let (entries, _) = kept.take();
        let LogEvent::Failed(text) = &entries[0].event else { panic!("{entries:?}") };
        assert!(text.starts_with("the function trapped: xxx") && text.ends_with(" [cut]"));
        assert!(text.len() < MIN_REPORT_BYTES + 10, "{}", text.len());
        assert!(report(format_args!("{}", "x\n".repeat(10_000))).lines().count() < 1 + MAX_REPORT_BYTES / 32);
        assert_eq!(report(format_args!("a\nb")), "a\nb");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable(b"a\x1b[31mb\rc\td\xff"), "a\\u{1b}[31mb\\rc\td\u{fffd}");
    }
}
