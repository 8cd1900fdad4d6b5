//! The embedded durable store: function specs, secrets and other small records, and the directory they lie in.
//!
//! [`Store`] knows small records by key. [`Database`] is what larger things are built on: transactions over tables of
//! bytes, on a [`Disk`] that tests can take apart. Neither knows what the bytes mean; the library underneath (redb) stays
//! inside. Its one invariant: what was acknowledged is on disk, and what is read back is exactly what was written.

mod check;
mod committer;
mod database;
mod directory;
mod disk;
mod error;
mod files;
mod record;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated_disk;
mod store;
mod transaction;
mod vault;

pub use check::{Check, CheckStopper};
pub use database::Database;
pub use directory::DataDirectory;
pub use disk::{Disk, DiskFile, Opening, SystemDisk};
pub use error::{Error, Result};
pub use files::{is_unfinished, sync_directory, write_atomically};
pub use record::{ContentCheck, Sealer};
pub use store::Store;
pub use transaction::{ReadTable, Snapshot, Table, Transaction, Value};
pub use vault::Vault;
