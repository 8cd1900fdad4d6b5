//! The gateway over real sockets, in front of a fake provider.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod alerts;
mod asynchronous;
mod calls;
mod edge;
mod logs;
mod metrics;
mod openapi;
mod store;
mod streams;
