//! An image reference in, a verified artifact in the local store out.
//!
//! It speaks to registries, reads and writes image layouts on disk, and knows how WebAssembly lies in either. It is no container
//! client: of an image it takes the one module, and it never runs, compiles or unpacks anything.
//! Its one invariant: nothing gets its final name in the store before the size and digest of all it came from were
//! checked.

mod auth;
mod compression;
mod credentials;
mod disk;
mod endpoint;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
mod image;
mod image_config;
mod image_layers;
mod image_layout;
mod incoming;
mod index;
mod layout;
mod layout_archive;
mod layout_folder;
mod layout_writer;
mod limits;
mod manifest;
mod pipe;
mod pull;
mod push;
mod registry;
mod request;
mod retry;
mod session;
mod some_module;
mod source;
mod spin;
mod store;
mod tags;
mod transfer;
mod transport;
mod trust;
mod wasm_artifact;

pub use disk::read_layout;
pub use host::RegistryHost;
pub use layout_writer::write_layout;
pub use registry::{DEFAULT_MAX_MODULE_BYTES, Registry, RegistryConfig, Timeouts};
pub use retry::Retries;
pub use source::{ArtifactSource, Fetched, Progress, PullPolicy};
pub use store::ArtifactStore;
pub use wasm_artifact::{ModuleDescription, WasmOs};
