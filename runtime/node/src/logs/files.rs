//! Where lines lie: each function's in numbered segments, the oldest of which go when there are too many.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use runtime_api::FunctionName;
use tokio::{sync::watch, time::Instant};

use super::LogLimits;

/// Of so many segments a function's log consists, so that half of it stays when it is full.
const SEGMENTS: usize = 2;

/// The most that is written at once; a segment has room for that.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Every log. What it tells of is on disk; what is not told of does not count.
pub(crate) struct Files {
    folder: PathBuf,
    limits: LogLimits,
    functions: HashMap<FunctionName, Log>,
    bytes: u64,
}

/// One function's log.
struct Log {
    /// Where it begins and ends, for those who follow it.
    extent: watch::Sender<Extent>,
    /// One for each number of the extent. The last is the one that grows; it may have no file yet.
    segments: VecDeque<Segment>,
    /// Since when there is no such function.
    gone: Option<Instant>,
}

struct Segment {
    bytes: u64,
    written: SystemTime,
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The number of the oldest segment.
    pub(crate) first: u64,
    /// The number of the newest.
    pub(crate) last: u64,
    /// The newest one's size; those before it are read to their ends.
    pub(crate) bytes: u64,
}

impl Log {
    fn new(first: u64, segments: VecDeque<Segment>) -> Self {
        let log = Self {
            extent: watch::Sender::new(Extent { first, last: first, bytes: 0 }),
            segments,
            gone: None,
        };
        log.tell(first);
        log
    }

    fn empty() -> Self {
        Self::new(1, VecDeque::from([Segment::empty()]))
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Its place among the logs that are to lose something: how much it has, and how old it is.
    fn weight(&self) -> (u64, Reverse<SystemTime>) {
        let oldest = self.segments.iter().find(|segment| segment.bytes > 0);
        (self.bytes(), Reverse(oldest.map_or(SystemTime::UNIX_EPOCH, |segment| segment.written)))
    }

    fn extent(&self) -> Extent {
        *self.extent.borrow()
    }

    /// Removes the oldest segment, and tells what it held. The newest is followed by one that is empty.
    fn remove_first(&mut self, folder: &Path, function: &FunctionName) -> io::Result<u64> {
        let first = self.extent().first;
        remove(folder, function, first)?;
        let bytes = self.segments.pop_front().map_or(0, |segment| segment.bytes);
        if self.segments.is_empty() {
            self.segments.push_back(Segment::empty());
        }
        self.tell(first + 1);
        Ok(bytes)
    }

    fn tell(&self, first: u64) {
        let last = first + self.segments.len().saturating_sub(1) as u64;
        let bytes = self.segments.back().map_or(0, |segment| segment.bytes);
        self.extent.send_replace(Extent { first, last, bytes });
    }
}

impl Segment {
    fn empty() -> Self {
        Self { bytes: 0, written: SystemTime::UNIX_EPOCH }
    }
}

/// A segment's file.
pub(crate) fn path(folder: &Path, function: &FunctionName, number: u64) -> PathBuf {
    folder.join(format!("{function}.{number}"))
}

impl Files {
    /// Takes up what an earlier node left, whose last line may be torn. A file that cannot be used costs its function
    /// lines, and nobody else anything; an error is one of the folder.
    pub(crate) fn open(folder: &Path, limits: LogLimits) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut found: HashMap<FunctionName, Vec<u64>> = HashMap::new();
        for entry in fs::read_dir(folder)? {
            if let Some((function, number)) = entry?.file_name().to_str().and_then(parse) {
                found.entry(function).or_default().push(number);
            }
        }
        let mut files = Self { folder: folder.to_owned(), limits, functions: HashMap::new(), bytes: 0 };
        for (function, mut numbers) in found {
            numbers.sort_unstable();
            files.take_up(function, &numbers);
        }
        if let Err(error) = files.make_room() {
            tracing::warn!(%error, "functions' logs take more than they may");
        }
        Ok(files)
    }

    /// The newest segments without a gap between them; what is before is not told of by any reader.
    fn take_up(&mut self, function: FunctionName, numbers: &[u64]) {
        let Some(last) = numbers.last().copied() else { return };
        let mut segments = VecDeque::new();
        let mut first = last + 1;
        for number in numbers.iter().rev().copied() {
            let path = path(&self.folder, &function, number);
            let taken = if number + 1 != first || segments.len() == SEGMENTS {
                fs::remove_file(&path)
            } else {
                segment(&path, number == last).map(|segment| {
                    self.bytes += segment.bytes;
                    segments.push_front(segment);
                    first = number;
                })
            };
            if let Err(error) = taken {
                tracing::warn!(file = %path.display(), %error, "a file of a function's log cannot be used");
            }
        }
        if segments.is_empty() {
            segments.push_back(Segment::empty());
        }
        self.functions.insert(function, Log::new(first, segments));
    }

    /// Adds whole lines, of at most [`CHUNK_BYTES`], to a function's log.
    pub(crate) fn append(&mut self, function: &FunctionName, lines: &str) -> io::Result<()> {
        let bytes = lines.len() as u64;
        let log = self.functions.entry(function.clone()).or_insert_with(Log::empty);
        if log.extent().bytes > 0 && log.extent().bytes + bytes > self.limits.segment_bytes() {
            while log.segments.len() >= SEGMENTS {
                self.bytes -= log.remove_first(&self.folder, function)?;
            }
            log.segments.push_back(Segment::empty());
            log.tell(log.extent().first);
        }
        let Extent { first, last, bytes: end } = log.extent();
        write(&path(&self.folder, function, last), lines, end)?;
        self.bytes += bytes;
        if let Some(segment) = log.segments.back_mut() {
            *segment = Segment { bytes: end + bytes, written: SystemTime::now() };
        }
        log.tell(first);
        if self.bytes > self.limits.total_bytes { self.make_room() } else { Ok(()) }
    }

    /// Removes the oldest segment of whichever function has most, until a sixteenth of the total is free, so that this
    /// is seldom done. One that cannot be removed is left where it is.
    fn make_room(&mut self) -> io::Result<()> {
        if self.bytes <= self.limits.total_bytes {
            return Ok(());
        }
        let wanted = self.limits.total_bytes - self.limits.total_bytes / 16;
        let mut failed = Ok(());
        let mut logs: BinaryHeap<_> =
            self.functions.iter().map(|(function, log)| (log.weight(), function.clone())).collect();
        while self.bytes > wanted
            && let Some((_, function)) = logs.pop().filter(|((bytes, _), _)| *bytes > 0)
        {
            let Some(log) = self.functions.get_mut(&function) else { continue };
            match log.remove_first(&self.folder, &function) {
                Ok(bytes) => {
                    self.bytes -= bytes;
                    logs.push((log.weight(), function));
                }
                Err(error) => failed = Err(error),
            }
        }
        if self.bytes > self.limits.total_bytes { failed } else { Ok(()) }
    }

    /// Removes a segment and those before it.
    fn remove_through(&mut self, function: &FunctionName, number: u64) -> io::Result<()> {
        let Some(log) = self.functions.get_mut(function) else { return Ok(()) };
        while log.extent().first <= number {
            self.bytes -= log.remove_first(&self.folder, function)?;
        }
        Ok(())
    }

    /// Where a function's log begins and ends, now and later; of a function without one only if there `exists` one.
    pub(crate) fn watch(&mut self, function: &FunctionName, exists: bool) -> Option<watch::Receiver<Extent>> {
        if exists {
            self.functions.entry(function.clone()).or_insert_with(Log::empty);
        }
        self.functions.get(function).map(|log| log.extent.subscribe())
    }

    /// Removes a function's log. Those who follow it come to its end.
    fn remove(&mut self, function: &FunctionName) -> io::Result<()> {
        let Some(log) = self.functions.get(function) else { return Ok(()) };
        let last = log.extent().last;
        self.remove_through(function, last)?;
        self.functions.remove(function);
        Ok(())
    }

    /// The same, at any price: the next log of the name begins behind what cannot be removed, and with a gap, so that
    /// the next start does not take that for a part of it.
    pub(crate) fn give_up(&mut self, function: &FunctionName) {
        let Err(error) = self.remove(function) else { return };
        tracing::error!(%function, %error, "a function's log cannot be removed: it stays on disk until it can be");
        let Some(log) = self.functions.remove(function) else { return };
        self.bytes -= log.bytes();
        let next = Log::new(log.extent().last + 2, VecDeque::from([Segment::empty()]));
        self.functions.insert(function.clone(), next);
    }

    /// Whose logs there are.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &FunctionName> {
        self.functions.keys()
    }

    /// Removes the logs of functions that have been gone for the grace period. One that cannot be removed is left for
    /// the next time.
    pub(crate) fn sweep(
        &mut self,
        exists: impl Fn(&FunctionName) -> bool,
        grace: std::time::Duration,
    ) -> io::Result<()> {
        let now = Instant::now();
        let mut over = Vec::new();
        for (function, log) in &mut self.functions {
            if exists(function) {
                log.gone = None;
            } else if now.duration_since(*log.gone.get_or_insert(now)) >= grace {
                over.push(function.clone());
            }
        }
        let mut removed = Ok(());
        for function in &over {
            removed = removed.and(self.remove(function));
        }
        removed
    }
}

/// `NAME.NAMESPACE.NUMBER`.
fn parse(file: &str) -> Option<(FunctionName, u64)> {
    let (function, number) = file.rsplit_once('.')?;
    function.contains('.').then_some(())?;
    let number: u64 = number.parse().ok().filter(|number| (1..u64::MAX / 2).contains(number))?;
    // Spelled as we do, so that no two files are the same segment.
    let function = FunctionName::parse(function).ok()?;
    (format!("{function}.{number}") == file).then_some((function, number))
}

fn remove(folder: &Path, function: &FunctionName, number: u64) -> io::Result<()> {
    match fs::remove_file(path(folder, function, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Nothing of lines that could not be written as a whole is left behind them, nor of an older file of that name.
fn write(path: &Path, lines: &str, at: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(at == 0).mode(0o600).open(path)?;
    file.write_all_at(lines.as_bytes(), at).or_else(|error| {
        file.set_len(at)?;
        Err(error)
    })
}

/// A segment that an earlier node left, if it can be read, and the newest also be written.
fn segment(path: &Path, newest: bool) -> io::Result<Segment> {
    // Before it is opened, which could block on what is none.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if newest {
        cut_torn_line(path)?;
    }
    let metadata = File::open(path)?.metadata()?;
    Ok(Segment { bytes: metadata.len(), written: metadata.modified()? })
}

/// A node that was killed may have been writing.
fn cut_torn_line(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = end_of_last_line(&file, length)?;
    if whole < length { file.set_len(whole) } else { Ok(()) }
}

fn end_of_last_line(file: &File, length: u64) -> io::Result<u64> {
    let (mut end, mut size) = (length, 1);
    while end > 0 {
        let start = end.saturating_sub(size);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        (end, size) = (start, CHUNK_BYTES as u64);
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
