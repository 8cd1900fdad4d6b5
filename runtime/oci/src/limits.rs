use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What the headers of one tar entry may take: long names and PAX records are read into memory as a whole.
const MAX_HEADER_BYTES: u64 = 1 << 20;

const LONG_HEADER: &str = "the name of a file in the archive is too long";

/// How much of an archive may still be read, in all and for the headers of an entry.
pub(crate) struct Limits {
    total: AtomicU64,
    header: AtomicU64,
    too_much: &'static str,
}

impl Limits {
    /// `too_much` says what to do where an archive has more than `total_bytes`.
    pub(crate) fn new(total_bytes: u64, too_much: &'static str) -> Self {
        Self { total: AtomicU64::new(total_bytes), header: AtomicU64::new(u64::MAX), too_much }
    }

    /// Bounds what `read` may read to what the headers of one entry may take.
    pub(crate) fn within_header<T>(&self, read: impl FnOnce() -> T) -> T {
        self.header.store(MAX_HEADER_BYTES, Relaxed);
        let done = read();
        self.header.store(u64::MAX, Relaxed);
        done
    }

    /// Bytes that may still be read.
    pub(crate) fn left(&self) -> u64 {
        self.total.load(Relaxed)
    }

    fn count(&self, bytes: u64) -> io::Result<()> {
        for (limit, what) in [(&self.total, self.too_much), (&self.header, LONG_HEADER)] {
            let counted = limit.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
            counted.map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, what))?;
        }
        Ok(())
    }
}

/// What is read of an archive, up to its limits. Going over them is a [`io::ErrorKind::FileTooLarge`].
pub(crate) struct Limited<R> {
    pub(crate) inner: R,
    pub(crate) limits: Arc<Limits>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.limits.count(read as u64)?;
        Ok(read)
    }
}

impl<R: Seek> Seek for Limited<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
