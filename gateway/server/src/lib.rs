//! What users talk to: the `OpenFaaS` REST API in front of a [`Provider`](runtime_api::Provider).
//!
//! Not what runs functions, and not what listens on ports. Its one invariant: the routes of `/system` and `/ui` can
//! only be reached through the check of credentials, because that is where the only way to them begins.

mod activator;
mod alert;
mod async_functions;
mod async_routes;
mod callback;
mod concurrency;
mod functions;
mod gateway;
mod invoke;
mod logs;
mod measured;
mod metrics;
mod metrics_endpoint;
mod openapi;
mod own_address;
mod queue_metrics;
mod retry;
mod routes;
mod scale_policy;
mod shares;
mod signing;
mod spool;
mod store;
mod store_list;
mod uploads;
mod worker;

pub use activator::ScaleFromZero;
pub use async_functions::Later;
pub use callback::CallbackConfig;
pub use gateway::{Config, Gateway, GatewayService};
pub use invoke::CallBody;
pub use metrics_endpoint::MetricsEndpoint;
pub use runtime_http::Credentials;
pub use signing::SigningSecrets;
pub use store::FunctionStore;
pub use store_list::{StoreFunction, StoreList};
pub use worker::Worker;
