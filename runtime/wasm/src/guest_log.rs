//! What guests write for their authors, as events with the function and the call.

use std::{
    error::Error as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use runtime_api::{CallId, Error, FunctionName};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

/// What one call may log, in bytes; the rest is dropped, and that is said.
const MAX_CALL_BYTES: usize = 64 << 10;

/// What a line costs besides its text: even an empty one is an event.
const LINE_COST_BYTES: usize = 32;

/// The longest line; longer ones are broken.
const MAX_LINE_BYTES: usize = 4 << 10;

/// Where one call's output for its author goes.
#[derive(Clone)]
pub(crate) struct GuestLog {
    call: Arc<CallLog>,
}

struct CallLog {
    function: FunctionName,
    call_id: CallId,
    left_bytes: Mutex<usize>,
}

impl CallLog {
    /// Whether all further output is dropped; then it is not even looked at.
    fn is_full(&self) -> bool {
        *self.left_bytes.lock().unwrap_or_else(PoisonError::into_inner) == 0
    }
}

impl GuestLog {
    pub(crate) fn new(function: &FunctionName, call_id: &CallId) -> Self {
        let call = CallLog {
            function: function.clone(),
            call_id: call_id.clone(),
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

    /// Tells why a command trapped, whose answer says only that it did.
    pub(crate) fn trapped(&self, error: &wasmtime::Error) {
        let CallLog { function, call_id, .. } = &*self.call;
        tracing::warn!(%function, %call_id, cause = %format_args!("{error:?}"), "function trapped");
    }

    /// Tells of a call that was stopped.
    pub(crate) fn late(&self, limit: Duration) {
        let CallLog { function, call_id, .. } = &*self.call;
        tracing::warn!(%function, %call_id, ?limit, "function was stopped at its deadline");
    }

    /// Tells of a failure that came too late for the answer's status.
    pub(crate) fn failed(&self, error: &Error) {
        let CallLog { function, call_id, .. } = &*self.call;
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%function, %call_id, %error, cause, "function failed after its answer began");
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
        let CallLog { function, call_id, left_bytes } = &*self.call;
        let mut left = left_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return;
        }
        *left = left.saturating_sub(line.len() + LINE_COST_BYTES);
        let text = printable(&line);
        tracing::info!(target: "guest", %function, %call_id, stream = self.name, "{text}");
        if *left == 0 {
            tracing::warn!(target: "guest", %function, %call_id, "the rest of this call's output is dropped");
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

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable(b"a\x1b[31mb\rc\td\xff"), "a\\u{1b}[31mb\\rc\td\u{fffd}");
    }
}
