//! What every process does first and last: logging, signals, serve and drain.
//!
//! Not a framework: each part is a function that `main` calls, and nothing here reads the environment or exits.
//! Its one invariant: when [`serve`] returns, no connection and no call of that listener is left.

mod bind;
mod connection;
mod log_queue;
mod logging;
mod serve;
mod signals;

pub use bind::{BindError, bind};
pub use log_queue::LogGuard;
pub use logging::{LogError, LogFormat, subscriber};
pub use serve::{Drained, ServeConfig, serve, serve_on_thread};
pub use signals::Signals;
