//! An artifact in, answers out: the engine, compilation, and pools of instances.
//!
//! It knows nothing of registries, stores of specs or routes. Wasmtime stays inside: no type of it is public.
//! Its one invariant: an instance serves one call, and nothing of that call survives it.

mod access;
mod answer;
mod cache;
mod cgi;
mod child;
mod clocks;
mod code;
mod compile;
mod ended;
mod engine;
mod failpoint;
mod filesystem;
mod function_log;
mod guest;
mod guest_log;
mod http;
mod inspect;
mod instance;
mod jail;
mod loaded;
mod long;
mod metrics;
mod outgoing;
mod output;
mod parts;
mod pool;
mod preview1;
mod rejected;
mod scan;
mod secrets;
mod shape;
mod sniff;
mod spill;
mod stdin;
mod stdio;

pub use child::{DAMAGED, compile_child};
pub use compile::{CompileCommand, CompiledModule, Compiler};
pub use engine::{Engine, EngineConfig, MAX_MEMORY_BYTES};
pub use function_log::{FunctionLog, LogBatch, LogEnd, LogEntry, LogEvent, LogQueue, LogStyle};
pub use inspect::{Inspection, World, inspect};
pub use instance::Limits;
pub use loaded::{CodeLimits, CodeUsage};
pub use metrics::Metrics;
pub use pool::{InstancePool, Settings, StdioSettings};
pub use secrets::{SecretFiles, Secrets};

#[cfg(test)]
mod tests;
