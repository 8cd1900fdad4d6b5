//! An image reference in, a verified artifact in the local store out.
//!
//! It speaks to registries and knows the layouts that WebAssembly has in them. It is no container client: of an image
//! it takes the one module that the entrypoint names, and it never runs, compiles or unpacks anything.
//! Its one invariant: nothing gets its final name in the store before the size and digest of all it came from were
//! checked.

mod auth;
mod credentials;
mod endpoint;
mod host;
mod image_layers;
mod incoming;
mod layout;
mod manifest;
mod pipe;
mod pull;
mod push;
mod registry;
mod request;
mod session;
mod source;
mod store;
mod transport;

pub use host::RegistryHost;
pub use push::{ModuleDescription, WasmOs};
pub use registry::{DEFAULT_MAX_MODULE_BYTES, Registry, RegistryConfig, Timeouts};
pub use source::{ArtifactSource, Progress};
pub use store::ArtifactStore;
