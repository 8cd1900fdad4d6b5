//! One reader of one function's log, from the disk: whoever writes does not know of it.

use std::{cmp::Ordering, fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use runtime_api::{Error, FunctionName, LogLine, Result};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::{
    files::{CHUNK_BYTES, Extent, path},
    line::Record,
};

/// What is read at once: at least one line, since they are written in such pieces.
const READ_BYTES: usize = CHUNK_BYTES;

/// Said where lines were removed before a reader came to them.
const MISSED: &str = "lines were dropped here: they were written faster than they were read";

/// Which lines are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) function: FunctionName,
    pub(crate) instance: String,
    pub(crate) since: Option<Timestamp>,
}

impl Wanted {
    /// A line, if it is one, and wanted.
    fn take(&self, line: &[u8]) -> Option<LogLine> {
        let text = String::from_utf8_lossy(line);
        let Some(Record { timestamp, node, text }) = Record::parse(&text) else {
            tracing::warn!(function = %self.function, "a line of the function's log is damaged, and left out");
            return None;
        };
        let line = self.line(instance(&self.function, node), timestamp, text);
        let asked = self.instance.is_empty() || self.instance == line.instance;
        (asked && self.since.is_none_or(|since| line.timestamp >= since)).then_some(line)
    }

    fn line(&self, instance: String, timestamp: Timestamp, text: &str) -> LogLine {
        LogLine {
            name: self.function.name().to_owned(),
            namespace: self.function.namespace().to_owned(),
            instance,
            timestamp,
            text: text.to_owned(),
        }
    }
}

/// What a function's calls on one node are known by.
fn instance(function: &FunctionName, node: &str) -> String {
    format!("{}-{node}", function.name())
}

/// A place in a log, and what remains to be read.
#[derive(Clone)]
pub(crate) struct Reader {
    folder: PathBuf,
    wanted: Wanted,
    extent: watch::Receiver<Extent>,
    /// Where the log ends for who does not follow it.
    until: Option<Extent>,
    ended: CancellationToken,
    segment: u64,
    offset: u64,
    file: Option<Arc<File>>,
    /// Wanted lines that are not told, being older than the newest so many.
    skip: u64,
    /// So many.
    tail: u64,
}

/// What comes next in a log.
enum Next {
    Lines(Vec<LogLine>),
    /// Lines that are gone.
    Missed,
    End,
}

/// What was read of a segment.
enum Piece {
    Lines(Vec<u8>),
    End,
    /// The file is gone.
    NoFile,
}

impl Reader {
    pub(crate) fn new(
        folder: PathBuf,
        wanted: Wanted,
        extent: watch::Receiver<Extent>,
        ended: CancellationToken,
    ) -> Self {
        let segment = extent.borrow().first;
        Self { folder, wanted, extent, until: None, ended, segment, offset: 0, file: None, skip: 0, tail: 0 }
    }

    /// The same, up to where the log ends now.
    pub(crate) fn until_now(mut self) -> Self {
        self.until = Some(*self.extent.borrow_and_update());
        self
    }

    /// The same without the oldest of the wanted lines, so that `tail` remain.
    pub(crate) fn skipping(self, lines: u64, tail: u64) -> Self {
        Self { skip: lines, tail, ..self }
    }

    /// How many wanted lines there are, after the last that are gone.
    pub(crate) async fn count(mut self) -> Result<u64> {
        let mut count = 0;
        loop {
            match self.step().await? {
                Next::Lines(lines) => count += lines.len() as u64,
                Next::Missed => count = 0,
                Next::End => return Ok(count),
            }
        }
    }

    /// Some more wanted lines; none at the end of the log, or of the node.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<LogLine>>> {
        loop {
            match self.step().await? {
                Next::Lines(lines) => return Ok(Some(lines)),
                Next::Missed if self.skip == 0 => return Ok(Some(vec![self.missed()])),
                // None that is gone was wanted; of those that are there, fewer are to be skipped.
                Next::Missed => {
                    let rest = Self { skip: 0, ..self.clone() };
                    let rest = if self.until.is_some() { rest } else { rest.until_now() };
                    self.skip = rest.count().await?.saturating_sub(self.tail);
                }
                Next::End => return Ok(None),
            }
        }
    }

    async fn step(&mut self) -> Result<Next> {
        loop {
            let now = *self.extent.borrow_and_update();
            let known = self.until.unwrap_or(now);
            if self.file.is_none() && self.segment < now.first {
                if known.last < now.first {
                    return Ok(Next::End);
                }
                (self.segment, self.offset) = (now.first, 0);
                return Ok(Next::Missed);
            }
            let is_last = self.segment >= known.last;
            let end = match self.segment.cmp(&known.last) {
                Ordering::Less => u64::MAX,
                Ordering::Equal => known.bytes,
                Ordering::Greater => 0,
            };
            match self.read(end).await? {
                Piece::Lines(bytes) => {
                    let lines = self.lines(&bytes);
                    if !lines.is_empty() {
                        return Ok(Next::Lines(lines));
                    }
                }
                Piece::End if is_last => {
                    if self.until.is_some() || !self.has_grown().await {
                        return Ok(Next::End);
                    }
                }
                Piece::End => self.begin_next(),
                // It is removed before that is told.
                Piece::NoFile => {
                    self.begin_next();
                    return Ok(Next::Missed);
                }
            }
        }
    }

    fn begin_next(&mut self) {
        (self.segment, self.offset, self.file) = (self.segment + 1, 0, None);
    }

    /// Waits for more; false when there will be none.
    async fn has_grown(&mut self) -> bool {
        tokio::select! {
            changed = self.extent.changed() => changed.is_ok(),
            () = self.ended.cancelled() => false,
        }
    }

    /// Whole lines from here on.
    async fn read(&mut self, end: u64) -> Result<Piece> {
        if self.offset >= end {
            return Ok(Piece::End);
        }
        let length = usize::try_from(end - self.offset).map_or(READ_BYTES, |rest| rest.min(READ_BYTES));
        let (file, offset) = (self.file.take(), self.offset);
        let path = path(&self.folder, &self.wanted.function, self.segment);
        let reading = tokio::task::spawn_blocking(move || read_lines(file, path, offset, length));
        match reading.await.map_err(Error::internal)? {
            Ok((file, bytes)) => {
                self.file = Some(file);
                self.offset += bytes.len() as u64;
                Ok(if bytes.is_empty() { Piece::End } else { Piece::Lines(bytes) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Piece::NoFile),
            Err(error) => Err(Error::internal(error)),
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Some(line) = self.wanted.take(line) else { continue };
            if self.skip > 0 {
                self.skip -= 1;
            } else {
                lines.push(line);
            }
        }
        lines
    }

    fn missed(&self) -> LogLine {
        self.wanted.line(self.wanted.instance.clone(), Timestamp::now(), MISSED)
    }
}

fn read_lines(
    file: Option<Arc<File>>,
    path: PathBuf,
    offset: u64,
    length: usize,
) -> io::Result<(Arc<File>, Vec<u8>)> {
    let file = file.map_or_else(|| File::open(path).map(Arc::new), Ok)?;
    let mut bytes = vec![0; length];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    // No line is that long, so what has no end is no line, and passed over as one.
    if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
        bytes.truncate(end + 1);
    } else if read < length {
        bytes.clear();
    }
    Ok((file, bytes))
}

/// A reader, with its place among those that there may be at once.
pub(crate) struct Placed {
    pub(crate) reader: Reader,
    pub(crate) _place: OwnedSemaphorePermit,
}
