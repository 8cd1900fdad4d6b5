//! A provider over HTTP: its REST surface in front of any [`Provider`](runtime_api::Provider), and the same trait from
//! the other side.
//!
//! Not what runs functions, and not what listens on ports. Its one invariant: an error becomes a status code, and a
//! status code an error, in `status.rs`, `answers.rs` and nowhere else.

mod answers;
mod auth;
mod call_id;
mod client;
mod cross_site;
mod functions;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod guesses;
mod headers;
mod introduction;
mod json;
mod log_lines;
mod logs;
mod metrics;
mod namespaces;
mod peer;
mod pools;
mod provider_url;
mod query;
mod request_head;
mod routes;
mod secrets;
mod server;
mod status;
mod throttle;
mod timed_body;
mod wire;

pub use auth::{BasicAuth, Credentials, are_presented, check_bearer};
pub use call_id::{CALL_ID, call_id};
pub use client::{HttpProvider, HttpProviderConfig, Unattributed};
pub use functions::{FunctionCall, function_not_found};
pub use gate::Gate;
pub use headers::{START_TIME, forward_request};
pub use introduction::Introduction;
pub use peer::Peer;
pub use provider_url::ProviderUrl;
pub use request_head::check_head;
pub use routes::{PATHS, Parameters, health_routes, is_route_name, list_functions, system_routes};
pub use server::{ProviderServer, ProviderServerConfig, ProviderService, ProviderStatus};
pub use status::{Failure, answer, answer_failures, no_route};
pub use timed_body::TimedBody;
