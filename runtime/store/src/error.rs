use std::{io, path::PathBuf};

/// What the store answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the data directory or the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data directory.
    #[error("data directory {} is in use by {holder}: stop that process, or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, such as `process 4711`.
        holder: String,
    },
    /// A file or directory of ours cannot be used as it is.
    #[error("cannot use {}: {problem}", path.display())]
    Unusable {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// There is too little room to write. Nothing was changed, and a later attempt may succeed.
    #[error("the disk of {} is full: free some space and try again", path.display())]
    Full {
        /// The directory that has no room.
        path: PathBuf,
    },
    /// A record does not read back as it was written.
    #[error("record {key:?} of table {table:?} is damaged: {problem}")]
    DamagedRecord {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What the check found.
        problem: &'static str,
    },
    /// A key or value is larger than the store takes.
    #[error("record {key:?} has {size_bytes} bytes: at most {limit_bytes} can be stored")]
    TooLarge {
        /// The key, shortened.
        key: String,
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A write failed at an unknown point, so that nothing more may be acknowledged (a failed fsync is not repeatable).
    #[error("the store stopped after a failed write: {0}; look after the disk, then restart")]
    Stopped(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// An [`Error::Unusable`], or [`Error::Full`] where that is the reason.
    pub(crate) fn unusable(path: impl Into<PathBuf>, problem: impl Into<String>, source: io::Error) -> Self {
        let path = path.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full { path };
        }
        Self::Unusable { path, problem: problem.into(), source: Some(source) }
    }
}
