//! Joins store, registry and engine into a [`Provider`](runtime_api::Provider): one machine that runs functions.
//!
//! It knows no routes and no status codes. Its one invariant: what the table serves is what the store holds, and a
//! deploy that fails changes neither.

mod access;
mod deploy;
mod disk;
mod house;
mod logs;
mod metrics;
mod namespaces;
mod node;
mod record;
mod rules;
mod secrets;
mod table;

pub use deploy::DEPLOY_WAIT;
pub use logs::{LogLimits, Logs};
pub use node::{Node, NodeConfig, NodeParts};
