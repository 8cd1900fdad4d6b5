//! The document that tells what the gateway serves (OpenAPI 3.0).

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

/// Kept by hand, and compared with the routes by a test.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
