//! The provider's REST surface, written once.
//!
//! Not a server, and without credentials of its own: the gateway or the node puts both in front.
//! Its one invariant: an error becomes a status code, and a line of the log, in `status.rs` and nowhere else.

mod call_id;
#[cfg(fuzzing)]
pub mod fuzzing;
mod json;
mod routes;
mod status;

pub use call_id::{CALL_ID, call_id};
pub use routes::{Parameters, health_routes, is_route_name, list_functions, system_routes};
pub use status::{Failure, answer, answer_failures, no_route};
