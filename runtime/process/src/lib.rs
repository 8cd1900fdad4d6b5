//! What every process does first and last: logging, signals, serve and drain.
//!
//! Not a framework: each part is a function that `main` calls, and nothing here reads the environment or exits.
//! Its one invariant: when [`serve`] returns, no connection and no call of that listener is left.

mod accept;
mod bind;
mod connection;
mod cores;
mod descriptors;
mod log_queue;
mod logging;
mod seldom;
mod serve;
mod share;
mod signals;

pub use bind::{BindError, bind, bind_each};
pub use cores::{Cores, serve_on_cores};
pub use descriptors::keep_descriptors;
pub use log_queue::LogGuard;
pub use logging::{LogError, LogFormat, subscriber};
pub use seldom::Seldom;
pub use serve::{Drained, ServeConfig, serve, serve_on_thread};
pub use signals::Signals;
