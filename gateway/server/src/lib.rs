//! What users talk to: the `OpenFaaS` REST API in front of a [`Provider`](runtime_api::Provider).
//!
//! Not what runs functions, and not what listens on ports. Its one invariant: the routes of `/system` and `/ui` can
//! only be reached through the check of credentials, because that is where the only way to them begins.

mod activator;
mod alert;
mod functions;
mod gateway;
mod invoke;
mod logs;
mod metrics;
mod metrics_endpoint;
mod openapi;
mod routes;
mod scale_policy;

pub use activator::ScaleFromZero;
pub use gateway::{Config, Gateway, GatewayService};
pub use invoke::CallBody;
pub use metrics_endpoint::MetricsEndpoint;
pub use runtime_http::Credentials;
