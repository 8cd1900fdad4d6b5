//! What users talk to: the `OpenFaaS` REST API in front of a [`Provider`](runtime_api::Provider).
//!
//! Not what runs functions, and not what listens on ports. Its one invariant: the routes of `/system` and `/ui` can
//! only be reached through the check of credentials, because that is where the only way to them begins.

mod auth;
mod cross_site;
mod functions;
mod gateway;
mod headers;
mod invoke;
mod metrics;
mod metrics_endpoint;
mod request_body;
mod request_head;
mod routes;

pub use auth::Credentials;
pub use gateway::{Config, Gateway, GatewayService};
pub use invoke::CallBody;
pub use metrics_endpoint::MetricsEndpoint;
