use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How much text may wait for whoever reads the log.
const MAX_BYTES: usize = 1 << 20;

/// How long the end of the process waits for that reader.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// What is logged, on its way to a thread that writes it. No call waits for the reader of a log: lines for which
/// there is no room are dropped and counted.
///
/// The guard of `tracing-appender` prints where a queue is full at exit, and that may block for good.
#[derive(Clone, Default)]
pub(crate) struct LogQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    dropped: u64,
    closed: bool,
    ended: bool,
}

/// Writes what is still waiting when it is dropped, so hold it until the process ends.
#[must_use = "the last lines of the log are lost without it"]
pub struct LogGuard {
    queue: LogQueue,
    flush_time: Duration,
}

impl LogQueue {
    /// Starts the thread. `note` is the line that tells how many were dropped.
    pub(crate) fn start(
        writer: impl Write + Send + 'static,
        note: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Self, LogGuard)> {
        let queue = Self::default();
        let thread = queue.clone();
        thread::Builder::new().name("log".into()).spawn(move || thread.write_out(writer, note))?;
        Ok((queue.clone(), LogGuard { queue, flush_time: FLUSH_TIME }))
    }

    fn write_out(&self, mut writer: impl Write, note: impl Fn(u64) -> String) {
        loop {
            let Waiting { mut text, dropped, closed, .. } = self.next();
            if dropped > 0 {
                text.extend(note(dropped).into_bytes());
            }
            // That a log cannot be written is nothing that could be logged.
            let _ = writer.write_all(&text).and_then(|()| writer.flush());
            if closed {
                break;
            }
        }
        self.lock().ended = true;
        self.0.changed.notify_all();
    }

    fn next(&self) -> Waiting {
        let nothing =
            |waiting: &mut Waiting| waiting.text.is_empty() && waiting.dropped == 0 && !waiting.closed;
        let waiting = self.0.changed.wait_while(self.lock(), nothing);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let closed = waiting.closed;
        mem::replace(&mut *waiting, Waiting { closed, ..Waiting::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.text.len() + line.len() > MAX_BYTES {
            waiting.dropped += 1;
        } else {
            waiting.text.extend_from_slice(line);
        }
        drop(waiting);
        self.0.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let LogQueue(shared) = &self.queue;
        self.queue.lock().closed = true;
        shared.changed.notify_all();
        // A reader that takes nothing does not keep the process.
        drop(shared.changed.wait_timeout_while(self.queue.lock(), self.flush_time, |waiting| !waiting.ended));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A pipe that takes nothing until it is opened.
    struct Pipe {
        opened: Receiver<()>,
        read: Arc<Mutex<String>>,
    }

    impl Write for Pipe {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.opened.recv();
            self.read.lock().unwrap().push_str(str::from_utf8(text).unwrap());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (LogQueue, LogGuard, Sender<()>, Arc<Mutex<String>>) {
        let ((open, opened), read) = (channel(), Arc::default());
        let note = |dropped| format!("{dropped} were dropped\n");
        let (queue, guard) = LogQueue::start(Pipe { opened, read: Arc::clone(&read) }, note).unwrap();
        (queue, guard, open, read)
    }

    #[test]
    fn the_end_of_the_process_flushes() {
        let (mut queue, guard, open, read) = start();
        drop(open);
        for line in ["one\n", "two\n", "three\n"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        drop(guard);
        assert_eq!(*read.lock().unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_pipe_that_takes_nothing_blocks_nobody_and_what_was_lost_is_counted() {
        let (mut queue, guard, open, read) = start();
        let line = format!("{}\n", "x".repeat(1023));
        let lines = 10 * MAX_BYTES / line.len();
        for _ in 0..lines {
            queue.write_all(line.as_bytes()).unwrap();
        }
        assert!(queue.lock().text.len() <= MAX_BYTES);
        drop(open);
        drop(guard);
        let read = read.lock().unwrap();
        let kept = read.matches(&line).count();
        let told: usize = read
            .lines()
            .filter_map(|line| line.strip_suffix(" were dropped"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        assert!(told > 0);
        assert_eq!(kept + told, lines);
    }

    #[test]
    fn a_reader_that_never_reads_does_not_keep_the_process() {
        let (mut queue, mut guard, open, read) = start();
        queue.write_all(b"one\n").unwrap();
        guard.flush_time = Duration::from_millis(1);
        drop(guard);
        assert_eq!(*read.lock().unwrap(), "");
        drop(open);
    }
}
