//! Looks at every page of a file while others read and change it.

use std::{
    collections::BTreeMap,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{Builder, ReadTransaction, StorageBackend};

use crate::{DiskFile, Error, Result, store::cannot_open};

/// Pages are looked at once, or twice.
const CACHE_BYTES: usize = 4 << 20;
/// What is kept together of what is written. The library's pages begin at multiples of it.
const BLOCK_BYTES: u64 = 4096;

/// A check of what a file was like when it was opened. It reads the file twice, and changes nothing: what the library
/// writes while it checks stays in memory.
pub struct Check {
    pub(crate) path: PathBuf,
    view: View,
    /// Keeps the pages of that time from being used again.
    _pages: ReadTransaction,
}

impl Check {
    /// Of a file that was just opened, before anything was written.
    pub(crate) fn new(path: PathBuf, file: Arc<dyn DiskFile>, pages: ReadTransaction) -> io::Result<Self> {
        let length = file.len_bytes()?;
        let view = View {
            file,
            stopped: Arc::default(),
            state: Mutex::new(State { length, written: BTreeMap::new() }),
        };
        // The one block that is written over where it lies.
        let mut header = vec![0; usize::try_from(BLOCK_BYTES.min(length)).unwrap_or_default()];
        view.file.read_at(0, &mut header)?;
        view.state().written.insert(0, header);
        Ok(Self { path, view, _pages: pages })
    }

    /// Has [`Check::run`] end soon, with nothing found.
    pub fn stopper(&self) -> CheckStopper {
        CheckStopper(Arc::clone(&self.view.stopped))
    }

    /// Blocks on the disk: the check values of all pages.
    ///
    /// # Errors
    /// [`Error::Unusable`]: what is wrong with the file.
    pub fn run(self) -> Result<()> {
        let Self { path, view, _pages } = self;
        let stopped = Arc::clone(&view.stopped);
        let check = || {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            builder.create_with_backend(view).map(drop).map_err(|error| cannot_open(&path, error))
        };
        let checked = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| {
            let problem = "it cannot be checked: a page of it is not what it should be".into();
            Err(Error::Unusable { path: path.clone(), problem, source: None })
        });
        if stopped.load(Ordering::Relaxed) { Ok(()) } else { checked }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.path.display())
    }
}

/// Ends a check that runs elsewhere.
#[derive(Clone, Debug)]
pub struct CheckStopper(Arc<AtomicBool>);

impl CheckStopper {
    /// As [`Check::stopper`] says.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file with what was written to it in memory alone.
#[derive(Debug)]
struct View {
    file: Arc<dyn DiskFile>,
    stopped: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Blocks by where they begin.
    written: BTreeMap<u64, Vec<u8>>,
}

impl View {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_running(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            Err(io::Error::other("the check was stopped"))
        } else {
            Ok(())
        }
    }

    /// What the file itself has; zeroes behind its end.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = self.file.len_bytes()?.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        self.file.read_at(offset, out.get_mut(..there).unwrap_or_default())
    }
}

/// The part of a block that a range from `offset` on covers: where it begins in the block, and in the range.
fn overlap(block: u64, offset: u64) -> (usize, usize) {
    let distance = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    (distance(block, offset), distance(offset, block))
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_running()?;
        let state = self.state();
        self.read_file(offset, out)?;
        let first = offset - offset % BLOCK_BYTES;
        for (block, bytes) in state.written.range(first..offset + out.len() as u64) {
            let (in_block, in_range) = overlap(*block, offset);
            let (from, to) =
                (bytes.get(in_block..).unwrap_or_default(), out.get_mut(in_range..).unwrap_or_default());
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.length = length;
        state.written.retain(|block, _| *block < length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check_running()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_running()?;
        let mut state = self.state();
        let end = offset + data.len() as u64;
        let mut block = offset - offset % BLOCK_BYTES;
        while block < end {
            let bytes = match state.written.remove(&block) {
                Some(bytes) => bytes,
                None => {
                    let mut bytes = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()];
                    self.read_file(block, &mut bytes)?;
                    bytes
                }
            };
            let bytes = state.written.entry(block).or_insert(bytes);
            let (in_block, in_range) = overlap(block, offset);
            let (to, from) =
                (bytes.get_mut(in_block..).unwrap_or_default(), data.get(in_range..).unwrap_or_default());
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            block += BLOCK_BYTES;
        }
        Ok(())
    }

    fn try_lock_range(
        &self,
        _start: std::ops::Bound<u64>,
        _end: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }
}
