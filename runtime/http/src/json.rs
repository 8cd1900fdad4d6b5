use std::{error::Error as StdError, time::Duration};

use axum::body::{Body, Bytes, to_bytes};
use http_body_util::LengthLimitError;
use runtime_api::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

/// Room for any spec; a client that sends more is not sending one.
const MAX_BYTES: usize = 1 << 20;

/// A spec is sent in one go; whoever takes longer is not sending one.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Reads a body as Go reads a struct (`OpenFaaS`): names in any case, while unknown names and nulls do not count.
/// `fields` are the names that are known.
pub(crate) async fn read<T: DeserializeOwned>(body: Body, fields: &[&str]) -> Result<T> {
    read_up_to(MAX_BYTES, body, fields).await
}

/// As [`read`], of a body that may be larger.
pub(crate) async fn read_up_to<T: DeserializeOwned>(
    max_bytes: usize,
    body: Body,
    fields: &[&str],
) -> Result<T> {
    parse(&collect(max_bytes, body).await?, fields)
}

/// As [`read`], of a body that may be left out.
pub(crate) async fn read_or_default<T: DeserializeOwned + Default>(body: Body, fields: &[&str]) -> Result<T> {
    let bytes = collect(MAX_BYTES, body).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&bytes, fields) }
}

async fn collect(max_bytes: usize, body: Body) -> Result<Bytes> {
    let bytes = timeout(MAX_TIME, to_bytes(body, max_bytes)).await;
    let bytes = bytes.map_err(|_| Error::invalid("request-timeout", "the body did not arrive in time"))?;
    bytes.map_err(|error| unreadable(&error, max_bytes))
}

fn unreadable(error: &axum::Error, max_bytes: usize) -> Error {
    if error.source().is_some_and(<dyn StdError>::is::<LengthLimitError>) {
        return Error::invalid("too-large", format!("the body is larger than {max_bytes} bytes"));
    }
    Error::invalid("incomplete-body", format!("the body did not arrive: {error}"))
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], fields: &[&str]) -> Result<T> {
    let invalid = |why: String| Error::invalid("invalid-json", format!("failed to unmarshal request: {why}"));
    let value = match serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))? {
        Value::Object(object) => Value::Object(known(object, fields)),
        _ => return Err(invalid("an object is expected".into())),
    };
    serde_path_to_error::deserialize(value)
        .map_err(|error| invalid(format!("field {}: {}", error.path(), error.inner())))
}

/// Gives fields their own spelling. Maps whose keys are users' are left alone, but for amounts (`limits`, `requests`).
fn known(object: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let spelt = |key: String| match fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
        Some(field) => (*field).to_owned(),
        None => key,
    };
    let present = object.into_iter().filter(|(_, value)| !value.is_null());
    present
        .map(|(key, value)| match (spelt(key), value) {
            (key, Value::Object(amounts)) if key == "limits" || key == "requests" => {
                (key, Value::Object(known(amounts, &["memory", "cpu"])))
            }
            other => other,
        })
        .collect()
}
