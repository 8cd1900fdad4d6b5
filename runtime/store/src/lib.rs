//! The embedded durable store: function specs, secrets and other small records, and the directory they lie in.
//!
//! It knows tables of bytes by key and nothing of what they mean; the library underneath (redb) stays inside.
//! Its one invariant: what was acknowledged is on disk, and what is read back is exactly what was written.

mod committer;
mod directory;
mod error;
mod files;
mod record;
#[cfg(test)]
mod simulated_disk;
mod store;
mod vault;

pub use directory::DataDirectory;
pub use error::{Error, Result};
pub use files::{sync_directory, write_atomically};
pub use store::Store;
pub use vault::Vault;
