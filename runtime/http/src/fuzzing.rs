//! What fuzzers call; not there in any other build.

use runtime_api::{FunctionSpec, Result};

/// The body of a deploy.
///
/// # Errors
/// As clients are told them.
pub fn spec(bytes: &[u8]) -> Result<FunctionSpec> {
    crate::json::parse(bytes, &crate::routes::SPEC_FIELDS)
}
