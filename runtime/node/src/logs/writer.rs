//! The one thread that writes what calls leave for their functions' logs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use runtime_process::Seldom;
use runtime_wasm::{FunctionLog, LogEntry, LogEvent, LogQueue};
use tokio::sync::watch;

use super::{
    files::{CHUNK_BYTES, Files},
    line::Scribe,
    rates::Rates,
};

/// Between two rounds of writing, so that under load a round has many lines. Those who follow see lines that late.
const REST: Duration = Duration::from_millis(20);

/// How often it is said that lines are lost, whatever their number and that of functions.
pub(crate) const SAY_EVERY: Duration = Duration::from_mins(1);

/// Where a gap begins; where it ends, a line tells how large it is.
const TOO_FAST: &str =
    "lines are left out from here: more than 256 KiB a second were written for some seconds";

pub(crate) struct Writer {
    pub(crate) queue: LogQueue,
    pub(crate) files: Arc<Mutex<Files>>,
    pub(crate) scribe: Scribe,
    pub(crate) rates: Rates,
    /// The last of [`LogQueue::ask`]'s answers that is written.
    pub(crate) settled: watch::Sender<u64>,
    /// Lines that could not be written.
    pub(crate) lost: Seldom,
}

impl Writer {
    /// Writes until the queue is closed, and then what is left.
    pub(crate) fn run(mut self) {
        let mut answered = 0;
        while let Some(batch) = self.queue.next(answered) {
            self.scribe.begin();
            for log in &batch.logs {
                self.write(log);
            }
            answered = batch.asked;
            self.settled.send_replace(answered);
            self.queue.rest(REST);
        }
    }

    fn write(&mut self, log: &FunctionLog) {
        self.write_at(log, Instant::now());
    }

    fn write_at(&mut self, log: &FunctionLog, now: Instant) {
        let (function, (entries, dropped)) = (log.function(), log.take());
        if log.has_ended() {
            // The next log of this name begins anew, with all that it may write.
            self.rates.forget(function);
            return;
        }
        let mut rate = self.rates.take(function, now);
        let mut lines = String::new();
        if let Some(left_out) = rate.resume(now) {
            self.scribe.write_dropped(&mut lines, left_out);
        }
        for entry in &entries {
            if rate.is_over() {
                rate.leave_out(1);
                continue;
            }
            let before = lines.len();
            self.scribe.write(&mut lines, entry, log.style());
            if !rate.admits(lines.len() - before, now) {
                lines.truncate(before);
                let told = LogEntry { at: entry.at, event: LogEvent::Failed(TOO_FAST.into()) };
                self.scribe.write(&mut lines, &told, log.style());
            }
            if lines.len() > CHUNK_BYTES {
                self.append(log, lines.get(..before).unwrap_or_default());
                lines.drain(..before);
            }
        }
        match dropped {
            0 => {}
            dropped if rate.is_over() => rate.leave_out(dropped),
            dropped => self.scribe.write_dropped(&mut lines, dropped),
        }
        self.rates.put(function, rate, now);
        self.append(log, &lines);
    }

    /// Adds whole lines, in pieces of the size that is written at once.
    fn append(&mut self, log: &FunctionLog, mut lines: &str) {
        let function = log.function();
        while !lines.is_empty() {
            let (now, later) = lines.split_at(end_of_chunk(lines));
            lines = later;
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            // It ends under this lock, so that no line of it comes into the next log of its name.
            if log.has_ended() {
                return;
            }
            let appended = files.append(function, now);
            drop(files);
            let lost = appended.as_ref().map_or_else(|_| now.matches('\n').count() as u64, |()| 0);
            if let Some(lines) = self.lost.add(lost, Instant::now()) {
                let error = appended.err().map(tracing::field::display);
                tracing::warn!(%function, error, lines, "functions' logs could not be written, and lost lines");
            }
        }
    }
}

/// As many lines as are written at once, and at least one.
fn end_of_chunk(lines: &str) -> usize {
    let Some(chunk) = lines.as_bytes().get(..CHUNK_BYTES) else { return lines.len() };
    let end = chunk.iter().rposition(|byte| *byte == b'\n');
    end.map_or(lines.len(), |end| end + 1)
}
