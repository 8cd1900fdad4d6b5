use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use runtime_api::{Error, LogLine, LogQuery, Result};
use tracing::warn;

use crate::routes::{Answer, Parameters, Shared, check_namespace, function_name, namespace_of};

/// Lines as JSON, one a line.
const NDJSON: &str = "application/x-ndjson";

pub(crate) async fn read(State(provider): Shared, Query(query): Query<Parameters>) -> Answer<Response> {
    check_namespace(&*provider, namespace_of(&query)).await?;
    let lines = provider.logs(wanted(&query)?).await?;
    let text = lines.and_then(async |line: LogLine| {
        let mut text = serde_json::to_vec(&line).map_err(Error::internal)?;
        text.push(b'\n');
        Ok(Bytes::from(text))
    });
    let text = text.inspect_err(|error| warn!(%error, "a log cannot be read to its end"));
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(text)).into_response())
}

fn wanted(query: &Parameters) -> Result<LogQuery> {
    let given = |name: &str| query.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let name = given("name").ok_or_else(|| invalid("name is required: it is the function's name"))?;
    let tail = given("tail").map(|tail| {
        tail.parse::<i64>().map_err(|_| invalid(&format!("tail {tail:?} is not a whole number")))
    });
    let since = given("since").map(|since| {
        since.parse::<Timestamp>().map_err(|_| {
            invalid(&format!("since {since:?} is no time of RFC 3339, such as 2026-01-31T12:00:00Z"))
        })
    });
    Ok(LogQuery {
        function: function_name(name, namespace_of(query))
            .map_err(|error| Error::NotFound(error.to_string()))?,
        instance: given("instance").unwrap_or_default().to_owned(),
        tail: tail.transpose()?.and_then(|tail| u64::try_from(tail).ok()).filter(|tail| *tail > 0),
        since: since.transpose()?,
        follow: given("follow").is_some_and(is_true),
    })
}

fn invalid(why: &str) -> Error {
    Error::invalid("invalid-log-query", format!("could not parse the log request: {why}"))
}

/// As Go's `strconv.ParseBool` has it; anything else is false (`OpenFaaS`).
pub(crate) fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
