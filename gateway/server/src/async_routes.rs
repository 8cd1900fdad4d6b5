//! `/system/async…`: what became of asynchronous calls, and what to do about those that were given up (ours).

use std::{str::FromStr, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{delete, get, post},
};
use gateway_queue::{CallStatus, EntryId, FunctionCounts, Page, Queue, State as CallState, Which};
use http::Uri;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use runtime_api::{CallId, Error, FunctionName, Result};
use runtime_http::{Failure, Parameters, function_not_found};
use serde::Serialize;

/// Calls in one answer, where nobody says how many.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

type SharedQueue = State<Arc<dyn Queue>>;

/// For those who have shown their credentials.
pub(crate) fn async_routes(queue: Arc<dyn Queue>) -> Router {
    Router::new()
        .route("/system/async", get(counts))
        .route("/system/async/{call_id}", get(find))
        .route("/system/async/calls/{function}", delete(clear))
        .route("/system/async/dead/{function}", get(dead_letters).delete(purge))
        .route("/system/async/dead/{function}/replay", post(replay))
        .with_state(queue)
}

/// Which part of a list: so many, from behind the one that `after` names.
fn page(query: &Parameters) -> Result<Page> {
    let limit = number(query, "limit")?.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(unreadable("limit", &format!("a number from 1 to {MAX_LIMIT}")));
    }
    Ok(Page { after: number(query, "after")?.map(EntryId), limit })
}

/// Which dead letters: one, or all.
fn which(query: &Parameters) -> Result<Which> {
    Ok(number(query, "id")?.map_or(Which::All, |id| Which::One(EntryId(id))))
}

fn number<T: FromStr>(query: &Parameters, name: &str) -> Result<Option<T>> {
    let read = |text: &String| text.parse().map_err(|_| unreadable(name, "a number"));
    query.get(name).map(read).transpose()
}

fn unreadable(name: &str, wanted: &str) -> Error {
    Error::invalid("invalid-query", format!("{name} wants {wanted}"))
}

#[derive(Serialize)]
struct Counts {
    functions: Vec<Count>,
    /// Calls whose records were found damaged, and never run.
    damaged: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    name: String,
    namespace: String,
    queued: u64,
    running: u64,
    waiting: u64,
    dead: u64,
    succeeded: u64,
    cancelled: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued: Option<Timestamp>,
}

impl From<FunctionCounts> for Count {
    fn from(counts: FunctionCounts) -> Self {
        let FunctionCounts { function, queued, running, waiting, dead, succeeded, cancelled, bytes, .. } =
            counts;
        let (name, namespace) = (function.name().to_owned(), function.namespace().to_owned());
        let oldest_queued = counts.oldest_queued.and_then(time);
        Self { name, namespace, queued, running, waiting, dead, succeeded, cancelled, bytes, oldest_queued }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    id: String,
    name: String,
    namespace: String,
    call_id: String,
    state: &'static str,
    accepted: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
    attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl From<CallStatus> for Call {
    fn from(call: CallStatus) -> Self {
        let attempt = |attempt: &gateway_queue::Attempt| Attempt {
            started: time(attempt.started),
            duration_seconds: attempt.duration.map(|duration| duration.as_secs_f64()),
            status: attempt.status,
        };
        Self {
            id: call.id.to_string(),
            name: call.function.name().to_owned(),
            namespace: call.function.namespace().to_owned(),
            call_id: call.call_id.to_string(),
            state: word(call.state),
            accepted: time(call.accepted),
            due: call.due.and_then(time),
            ended: call.ended.and_then(time),
            attempts: call.attempts.iter().map(attempt).collect(),
            last_error: call.last_error,
        }
    }
}

#[derive(Serialize)]
struct Done {
    calls: u64,
}

fn word(state: CallState) -> &'static str {
    match state {
        CallState::Queued => "queued",
        CallState::Running => "running",
        CallState::Waiting => "waiting",
        CallState::Succeeded => "succeeded",
        CallState::Dead => "dead",
        CallState::Cancelled => "cancelled",
    }
}

/// Times beyond the calendar are not told.
fn time(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

async fn counts(State(queue): SharedQueue) -> Result<Json<Counts>, Failure> {
    let counts = queue.counts().await.map_err(away)?;
    let damaged = queue.damaged(Page::first(LIMIT)).await.map_err(away)?;
    Ok(Json(Counts {
        functions: counts.into_iter().map(Count::from).collect(),
        damaged: damaged.iter().map(EntryId::to_string).collect(),
    }))
}

async fn find(
    State(queue): SharedQueue,
    uri: Uri,
    Query(query): Query<Parameters>,
) -> Result<Json<Vec<Call>>, Failure> {
    let call_id = CallId::new(percent_decode_str(segment(&uri, 3)).decode_utf8_lossy());
    let page = page(&query)?;
    let found = queue.find(&call_id, page).await.map_err(away)?;
    if found.is_empty() && page.after.is_none() {
        return Err(Error::NotFound(format!("no call with the id {call_id} is known")).into());
    }
    Ok(Json(found.into_iter().map(Call::from).collect()))
}

async fn dead_letters(
    State(queue): SharedQueue,
    uri: Uri,
    Query(query): Query<Parameters>,
) -> Result<Json<Vec<Call>>, Failure> {
    let dead = queue.dead_letters(&function(&uri)?, page(&query)?).await.map_err(away)?;
    Ok(Json(dead.into_iter().map(Call::from).collect()))
}

async fn clear(State(queue): SharedQueue, uri: Uri) -> Result<Json<Done>, Failure> {
    let cancelled = queue.clear(&function(&uri)?).await.map_err(away)?;
    Ok(Json(Done { calls: cancelled.ended + cancelled.told }))
}

async fn replay(
    State(queue): SharedQueue,
    uri: Uri,
    Query(query): Query<Parameters>,
) -> Result<Json<Done>, Failure> {
    let (function, which) = (function(&uri)?, which(&query)?);
    let calls = queue.replay(&function, which).await.map_err(away)?;
    Ok(Json(found(calls, which)?))
}

async fn purge(
    State(queue): SharedQueue,
    uri: Uri,
    Query(query): Query<Parameters>,
) -> Result<Json<Done>, Failure> {
    let (function, which) = (function(&uri)?, which(&query)?);
    let calls = queue.purge(&function, which).await.map_err(away)?;
    Ok(Json(found(calls, which)?))
}

fn found(calls: u64, which: Which) -> Result<Done> {
    match (which, calls) {
        (Which::One(id), 0) => Err(Error::NotFound(format!("there is no dead letter {id} of this function"))),
        _ => Ok(Done { calls }),
    }
}

/// The function that a path names, as it stands: nothing that needs percent-encoding names one.
fn function(uri: &Uri) -> Result<FunctionName> {
    let name = segment(uri, 4);
    FunctionName::parse(name).map_err(|error| function_not_found(name, &error.to_string()))
}

fn segment(uri: &Uri, number: usize) -> &str {
    uri.path().split('/').nth(number).unwrap_or_default()
}

fn away(error: gateway_queue::Error) -> Error {
    Error::unavailable("the queue cannot be read: the log of the gateway says why and what to do", error)
}
