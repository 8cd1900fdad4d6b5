//! What calls leave for their function's log, on its way to whoever keeps logs. A call never waits for that.

use std::{
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode, uri::PathAndQuery};
use runtime_api::{CallId, FunctionName};

/// What of one function may wait to be written, in bytes of memory. What is more is dropped, and counted.
const SHARE_BYTES: usize = 512 << 10;

/// With this much waiting of one function, whoever writes is woken.
const URGENT_BYTES: usize = SHARE_BYTES / 2;

/// What of all functions may wait.
const TOTAL_BYTES: usize = 32 << 20;

/// What each function may have waiting even while others use up the total.
const RESERVED_BYTES: usize = 4 << 10;

/// One function's log, as its calls write it.
pub struct FunctionLog {
    function: FunctionName,
    style: LogStyle,
    end: LogEnd,
    queue: LogQueue,
    waiting: Mutex<Waiting>,
}

/// Tells the calls of a function that its log is gone for good, and that a function of the same name has another.
#[derive(Clone, Debug, Default)]
pub struct LogEnd(Arc<AtomicBool>);

impl LogEnd {
    /// Nothing more is added to the logs with this end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether somebody else has it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// How a function wants its log (`OpenFaaS` of-watchdog).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStyle {
    /// `prefix_logs`: what the function writes has the date, the time and the stream's name before it.
    pub prefix: bool,
    /// `log_callid`: an answer's line ends with the call id.
    pub call_id: bool,
}

/// One thing that happened. Whoever writes makes lines of it, so that calls need not.
#[derive(Debug)]
pub struct LogEntry {
    /// When.
    pub at: Instant,
    /// What.
    pub event: LogEvent,
}

/// What happened, for the lines that `OpenFaaS`'s watchdogs write.
#[derive(Debug)]
pub enum LogEvent {
    /// A command is about to run.
    Forking,
    /// A command has answered.
    Wrote {
        /// The size of its answer.
        bytes: u64,
        /// The time that the call took.
        took: Duration,
    },
    /// A handler has answered.
    Answered {
        /// The request's method.
        method: Method,
        /// The request's target, as it was received.
        target: PathAndQuery,
        /// The answer's status.
        status: StatusCode,
        /// The size of its body, as far as it was read.
        bytes: u64,
        /// The time that the call took.
        took: Duration,
        /// The call's id, if the function wants it told.
        call_id: Option<CallId>,
    },
    /// A command was stopped at its deadline.
    KilledCommand {
        /// Its command line.
        command: String,
    },
    /// A handler was stopped at its deadline.
    KilledHandler {
        /// The time that it was allowed.
        limit: Duration,
    },
    /// A call failed otherwise: why, in as many lines as that takes.
    Failed(String),
    /// A line that the function wrote.
    Line {
        /// Where it wrote it: `stdout` or `stderr`.
        stream: &'static str,
        /// The line without its end.
        text: String,
    },
}

impl LogEntry {
    fn size_bytes(&self) -> usize {
        let text = match &self.event {
            LogEvent::Answered { target, .. } => target.as_str().len(),
            LogEvent::KilledCommand { command: text }
            | LogEvent::Failed(text)
            | LogEvent::Line { text, .. } => text.capacity(),
            LogEvent::Forking | LogEvent::Wrote { .. } | LogEvent::KilledHandler { .. } => 0,
        };
        size_of::<Self>() + text
    }
}

#[derive(Default)]
struct Waiting {
    entries: Vec<LogEntry>,
    bytes: usize,
    dropped: u64,
    /// Whether the queue knows of it.
    listed: bool,
}

impl FunctionLog {
    /// Whose log it is.
    pub fn function(&self) -> &FunctionName {
        &self.function
    }

    /// How the function wants it.
    pub fn style(&self) -> LogStyle {
        self.style
    }

    /// Whether there is no such log any more; what still waits is of nobody's then.
    pub fn has_ended(&self) -> bool {
        self.end.is_set()
    }

    /// Adds what happened just now.
    pub fn push(self: &Arc<Self>, event: LogEvent) {
        self.push_at(Instant::now(), event);
    }

    /// Adds what happened then, or counts it as dropped where there is no room. Waits for nobody.
    pub fn push_at(self: &Arc<Self>, at: Instant, event: LogEvent) {
        if self.has_ended() {
            return;
        }
        let entry = LogEntry { at, event };
        let bytes = entry.size_bytes();
        let mut waiting = self.lock();
        let before = waiting.bytes;
        if self.has_room(before + bytes, bytes) {
            self.queue.0.bytes.fetch_add(bytes, Ordering::Relaxed);
            waiting.bytes += bytes;
            waiting.entries.push(entry);
        } else {
            waiting.dropped += 1;
        }
        let urgent = before < URGENT_BYTES && waiting.bytes >= URGENT_BYTES;
        let unlisted = !mem::replace(&mut waiting.listed, true);
        drop(waiting);
        if unlisted || urgent {
            self.queue.tell(unlisted.then(|| self.clone()), urgent);
        }
    }

    /// Takes what waits, and how many entries were dropped since the last time.
    pub fn take(&self) -> (Vec<LogEntry>, u64) {
        let Waiting { entries, bytes, dropped, .. } = mem::take(&mut *self.lock());
        self.queue.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        (entries, dropped)
    }

    fn has_room(&self, own_bytes: usize, more_bytes: usize) -> bool {
        let total = self.queue.0.bytes.load(Ordering::Relaxed) + more_bytes;
        own_bytes <= SHARE_BYTES && (total <= TOTAL_BYTES || own_bytes <= RESERVED_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All functions' logs that have something to be written, for the one thread that writes them.
#[derive(Clone, Default)]
pub struct LogQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ready: Mutex<Ready>,
    changed: Condvar,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Ready {
    logs: Vec<Arc<FunctionLog>>,
    /// How often somebody asked for what waits to be written.
    asked: u64,
    /// Whether whoever writes is not to rest now.
    urgent: bool,
    /// Whether whoever writes waits for any log at all, and not for the end of its rest.
    idle: bool,
    closed: bool,
}

/// What is to be written now.
pub struct LogBatch {
    /// Logs with something waiting.
    pub logs: Vec<Arc<FunctionLog>>,
    /// What [`LogQueue::ask`] last answered: once these logs are written, so is all that was there then.
    pub asked: u64,
}

impl LogQueue {
    /// A function's log up to its end, whose entries go through this queue.
    pub fn log(&self, function: FunctionName, style: LogStyle, end: LogEnd) -> Arc<FunctionLog> {
        Arc::new(FunctionLog { function, style, end, queue: self.clone(), waiting: Mutex::default() })
    }

    /// Blocks until there is something to be written, or somebody asked since `answered`. `None` once the queue is
    /// closed and empty.
    pub fn next(&self, answered: u64) -> Option<LogBatch> {
        let mut ready = self.lock();
        ready.idle = true;
        let nothing = |ready: &mut Ready| ready.logs.is_empty() && ready.asked == answered && !ready.closed;
        let mut ready = self.0.changed.wait_while(ready, nothing).unwrap_or_else(PoisonError::into_inner);
        (ready.idle, ready.urgent) = (false, false);
        if ready.closed && ready.logs.is_empty() {
            return None;
        }
        Some(LogBatch { logs: mem::take(&mut ready.logs), asked: ready.asked })
    }

    /// Blocks for that time, or until something is urgent: entries that come one by one are written many at a time.
    pub fn rest(&self, time: Duration) {
        let calm = |ready: &mut Ready| !ready.urgent && !ready.closed;
        drop(self.0.changed.wait_timeout_while(self.lock(), time, calm));
    }

    /// Asks for all that waits to be written at once; [`LogBatch::asked`] tells when it was.
    pub fn ask(&self) -> u64 {
        let mut ready = self.lock();
        ready.asked += 1;
        ready.urgent = true;
        self.0.changed.notify_one();
        ready.asked
    }

    /// Lets whoever writes end, once it has written what waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_one();
    }

    fn tell(&self, log: Option<Arc<FunctionLog>>, urgent: bool) {
        let mut ready = self.lock();
        ready.logs.extend(log);
        ready.urgent |= urgent;
        let wake = ready.idle || urgent;
        drop(ready);
        if wake {
            self.0.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: LogStyle = LogStyle { prefix: true, call_id: false };

    fn log(queue: &LogQueue, name: &str) -> Arc<FunctionLog> {
        queue.log(FunctionName::parse(name).unwrap(), STYLE, LogEnd::default())
    }

    fn line(bytes: usize) -> LogEvent {
        LogEvent::Line { stream: "stderr", text: "x".repeat(bytes) }
    }

    #[test]
    fn a_flood_costs_its_function_lines_and_no_other() {
        let queue = LogQueue::default();
        let (loud, quiet) = (log(&queue, "loud"), log(&queue, "quiet"));
        for _ in 0..10_000 {
            loud.push(line(1000));
        }
        quiet.push(line(1000));
        assert!(queue.0.bytes.load(Ordering::Relaxed) < SHARE_BYTES + 2000);
        let (kept, dropped) = loud.take();
        assert_eq!(kept.len() as u64 + dropped, 10_000);
        assert!(kept.len() > 300 && dropped > 9000, "{dropped}");
        assert_eq!(quiet.take().1, 0);
        assert_eq!(queue.0.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_floods_leave_each_function_its_reserve() {
        let queue = LogQueue::default();
        let floods: Vec<_> = (0..200).map(|flood| log(&queue, &format!("f{flood}"))).collect();
        for flood in &floods {
            for _ in 0..100 {
                flood.push(line(10_000));
            }
        }
        let most = TOTAL_BYTES + floods.len() * RESERVED_BYTES;
        assert!(queue.0.bytes.load(Ordering::Relaxed) <= most);
        let late = log(&queue, "late");
        late.push(line(1000));
        late.push(line(10_000));
        let (kept, dropped) = late.take();
        assert_eq!((kept.len(), dropped), (1, 1));
    }

    #[test]
    fn entries_are_handed_over_once_and_in_order() {
        let queue = LogQueue::default();
        let (a, b) = (log(&queue, "a"), log(&queue, "b"));
        a.push(LogEvent::Forking);
        b.push(line(1));
        a.push(line(2));
        let ticket = queue.ask();
        let batch = queue.next(0).unwrap();
        assert_eq!(batch.asked, ticket);
        let names: Vec<_> = batch.logs.iter().map(|log| log.function().name()).collect();
        assert_eq!(names, ["a", "b"]);
        let (entries, dropped) = batch.logs[0].take();
        assert!(matches!(entries[0].event, LogEvent::Forking));
        assert!(matches!(&entries[1].event, LogEvent::Line { text, .. } if text == "xx"));
        assert_eq!(dropped, 0);
        b.take();
        queue.close();
        assert!(queue.next(ticket).is_none());
    }

    #[test]
    fn whoever_writes_is_woken_and_sees_everything() {
        const LINES: usize = 20_000;
        let queue = LogQueue::default();
        let writer = queue.clone();
        let writer = std::thread::spawn(move || {
            let (mut seen, mut answered) = (0, 0);
            while let Some(batch) = writer.next(answered) {
                for log in &batch.logs {
                    let (entries, dropped) = log.take();
                    seen += entries.len() + usize::try_from(dropped).unwrap();
                }
                answered = batch.asked;
                writer.rest(Duration::from_millis(1));
            }
            seen
        });
        let log = log(&queue, "a");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..LINES / 4).for_each(|_| log.push(LogEvent::Forking)));
            }
        });
        queue.close();
        assert_eq!(writer.join().unwrap(), LINES);
    }
}
