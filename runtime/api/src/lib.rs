//! The words of the domain, and the one trait that everything hangs on: [`Provider`].
//!
//! No I/O, no status codes, and no knowledge of Wasmtime, registries or web frameworks.
//! Its one invariant: a value of a type from here has been checked, once, where it was made.

mod artifact;
mod duration;
mod error;
mod image;
mod invocation;
mod logs;
mod name;
mod namespace;
mod nearest;
mod provider;
mod quantity;
mod secret;
mod spec;
mod status;

pub use artifact::{Artifact, ArtifactKind, Digest, ModuleCommand, Stored};
pub use duration::parse_duration;
pub use error::{Error, Fault, Result};
pub use image::{ImageReference, LOCAL_REGISTRY, LayoutForm, canonical_registry};
pub use invocation::{Admitted, Body, BodyError, CallId, Invocation, Response, empty, full};
pub use logs::{LogLine, LogQuery, LogStream};
pub use name::{DEFAULT_NAMESPACE, FunctionName};
pub use namespace::Namespace;
pub use nearest::nearest;
pub use provider::{Deployed, Provider, ProviderInfo, StoredArtifact, VersionInfo};
pub use quantity::{CpuQuantity, MemoryQuantity};
pub use secret::{MAX_SECRET_BYTES, SecretName, SecretValue};
pub use spec::{ASYNC, BASIC_AUTH, BEARER_SECRET, CALLBACK, CALLBACK_SECRET, FunctionSpec, Resources};
pub use status::{Deployment, FunctionStatus, FunctionUsage, Phase};
