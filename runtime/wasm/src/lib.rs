//! An artifact in, answers out: the engine, compilation, and pools of instances.
//!
//! It knows nothing of registries, stores of specs or routes. Wasmtime stays inside: no type of it is public.
//! Its one invariant: an instance serves one call, and nothing of that call survives it.

mod answer;
mod cache;
mod cgi;
mod child;
mod code;
mod compile;
mod engine;
mod failpoint;
mod guest;
mod guest_log;
mod http;
mod inspect;
mod instance;
mod jail;
mod loaded;
mod long;
mod outgoing;
mod output;
mod pool;
mod preview1;
mod rejected;
mod scan;
mod shape;
mod sniff;
mod spill;
mod stdin;
mod stdio;

pub use child::{DAMAGED, compile_child};
pub use compile::{CompileCommand, CompiledModule, Compiler};
pub use engine::{Engine, EngineConfig, MAX_MEMORY_BYTES};
pub use inspect::{Inspection, World, inspect};
pub use instance::Limits;
pub use loaded::{CodeLimits, CodeUsage};
pub use pool::{InstancePool, Settings, StdioSettings};

#[cfg(test)]
mod tests;
