//! `/async-function/NAME…`: calls that are kept on disk and run later.

use std::{collections::BTreeSet, fmt, io, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::try_unfold};
use gateway_queue::{Accepted, Content, NewCall, Page, Queue};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_LENGTH},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use runtime_api::{Body, CALLBACK, CallId, Error, FunctionName, FunctionStatus, Result, empty};
use runtime_http::{
    FunctionCall, Peer, answer, are_presented, forward_request, function_not_found, no_route,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    callback::{CALLBACK_URL, CallbackConfig, parse_callback},
    gateway::Parts,
    invoke::CallBody,
    queue_metrics::QueueMetrics,
    uploads::Uploads,
};

/// How much later a call is to run, in seconds (ours).
const DELAY: &str = "x-delay-seconds";
/// Makes two requests one call (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest delay, in seconds.
const MAX_DELAY_SECONDS: u64 = 30 * 24 * 3600;
const MAX_KEY_BYTES: usize = 255;
/// Requests that look for calls to cancel at once, how many calls each reads in one go, and how long others wait.
const CANCELS: usize = 4;
const CANCEL_PAGE: usize = 1000;
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// The time that a body may take, and the bytes that each further second of it has to bring.
const BODY_TIME: Duration = Duration::from_secs(30);
const BODY_BYTES_PER_SECOND: u64 = 64 << 10;
/// When it makes sense to try again where there was no room.
const RETRY: Duration = Duration::from_secs(5);

/// Calls that run later, and what a gateway needs for them.
#[derive(Clone)]
pub struct Later {
    /// Where they are kept.
    pub queue: Arc<dyn Queue>,
    /// The largest body of a call, in bytes.
    pub max_body_bytes: u64,
    /// How their answers are posted.
    pub callbacks: CallbackConfig,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").field("max_body_bytes", &self.max_body_bytes).finish_non_exhaustive()
    }
}

/// What a gateway has for calls that run later.
pub(crate) struct Asynchronous {
    pub(crate) later: Later,
    pub(crate) metrics: Arc<QueueMetrics>,
    uploads: Arc<Uploads>,
    /// Looking for calls by their ids takes a thread's time, and needs no credentials.
    cancels: Semaphore,
}

impl Asynchronous {
    pub(crate) fn new(later: Later, metrics: QueueMetrics) -> Self {
        let (uploads, cancels) = (Arc::default(), Semaphore::new(CANCELS));
        Self { later, metrics: Arc::new(metrics), uploads, cancels }
    }
}

/// The call id of an answer, where it is another than the request's.
#[derive(Clone)]
pub(crate) struct KnownBy(pub(crate) HeaderValue);

/// Keeps a call, or cancels those that carry the id in the path (`OpenFaaS` Pro).
pub(crate) async fn answer_later(
    gateway: &Parts,
    later: &Asynchronous,
    call_id: CallId,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<CallBody> {
    match *request.method() {
        Method::POST => {
            match FunctionCall::read(call_id, request, |headers| forward_request(headers, Some(&peer.header)))
            {
                Ok(call) => push(gateway, later, peer, call).await,
                Err(answer) => answer.map(CallBody::from),
            }
        }
        Method::DELETE => match cancel(gateway, later, peer, request).await {
            Ok(()) => accepted(None),
            Err(error) => answer(&error, &call_id).map(CallBody::from),
        },
        _ => {
            let mut response = Response::new(CallBody::from(empty()));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, DELETE"));
            response
        }
    }
}

/// Keeps a call, however its function was asked for.
pub(crate) async fn push(
    gateway: &Parts,
    later: &Asynchronous,
    peer: &Peer,
    call: FunctionCall,
) -> Response<CallBody> {
    let call_id = call.invocation.call_id.clone();
    match try_push(gateway, later, peer, call).await {
        Ok(kept) => accepted(kept.existed.then_some(kept.call_id)),
        Err(error) => answer(&error, &call_id).map(CallBody::from),
    }
}

/// `existed`: what the call is known by that this one is a repetition of.
fn accepted(existed: Option<CallId>) -> Response<CallBody> {
    let mut response = Response::new(CallBody::from(empty()));
    *response.status_mut() = StatusCode::ACCEPTED;
    // A call id is visible ASCII.
    if let Some(id) = existed.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        response.extensions_mut().insert(KnownBy(id));
    }
    response
}

async fn try_push(
    gateway: &Parts,
    asynchronous: &Asynchronous,
    peer: &Peer,
    call: FunctionCall,
) -> Result<Accepted> {
    let FunctionCall { invocation, stalled } = call;
    let (mut parts, body) = invocation.request.into_parts();
    let (function, later) = (invocation.function, &asynchronous.later);
    let status = known(gateway, peer, &function, &mut parts.headers).await.map_err(|error| match error {
        Error::NotFound(reason) => function_not_found(function.as_str(), &reason),
        error => error,
    })?;
    check_length(&parts.headers, later.max_body_bytes)?;
    let _upload = asynchronous.uploads.begin(&function)?;
    let new = NewCall {
        callback_url: callback_url(&parts.headers, &status, later)?,
        not_before: delay(&parts.headers)?.map(|delay| later.queue.now() + delay),
        idempotency_key: idempotency_key(&parts.headers)?,
        function: function.clone(),
        method: parts.method,
        path_and_query: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: parts.headers,
        call_id: invocation.call_id,
        body: Content::Stream(pieces(body, later.max_body_bytes)),
    };
    // Whoever reads the body is told that it failed, and this why.
    let has_stalled = || stalled.is_some_and(|stalled| stalled.notified().now_or_never().is_some());
    let kept = later.queue.push(new).await.map_err(|error| match error {
        gateway_queue::Error::Body(_) if has_stalled() => {
            Error::invalid("request-timeout", "the request's body stopped arriving")
        }
        error => told(error, later.max_body_bytes),
    })?;
    if !kept.existed {
        asynchronous.metrics.submitted(&function, &status.spec.annotations);
    }
    Ok(kept)
}

/// A function that whoever calls may call.
async fn known(
    gateway: &Parts,
    peer: &Peer,
    function: &FunctionName,
    headers: &mut HeaderMap,
) -> Result<FunctionStatus> {
    let presented = are_presented(headers);
    let admitted = gateway.provider.admit(function, headers);
    gateway.gate.call(peer.address, function, presented, admitted).await?;
    gateway.provider.status(function).await
}

/// What a queue's refusal is to a client.
fn told(error: gateway_queue::Error, max_body_bytes: u64) -> Error {
    use gateway_queue::Error as Queue;
    let message = error.to_string();
    match error {
        Queue::FunctionFull { .. } => Error::QueueFull { message, retry_after: RETRY },
        // What the disk has no room for now it may take later, unlike a deploy. The queue itself has told of it.
        Queue::StorageFull | Queue::QueueFull => Error::Overloaded { message, retry_after: RETRY },
        Queue::Busy => Error::Overloaded { message, retry_after: Duration::from_secs(1) },
        Queue::TooLarge { .. } => Error::invalid("too-large", message),
        Queue::Body(error) if error.kind() == io::ErrorKind::FileTooLarge => too_large(max_body_bytes),
        Queue::Body(error) if error.kind() == io::ErrorKind::TimedOut => {
            Error::invalid("request-timeout", "the request's body comes too slowly")
        }
        Queue::Body(error) => Error::invalid("invalid-body", error.to_string()),
        error => Error::unavailable(
            "asynchronous calls are not taken now: the log of the gateway says why and what to do",
            error,
        ),
    }
}

/// Refuses at once what says that it is too large.
fn check_length(headers: &HeaderMap, limit: u64) -> Result<()> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) { Err(too_large(limit)) } else { Ok(()) }
}

fn too_large(limit: u64) -> Error {
    let message =
        format!("the body of an asynchronous call is limited to {limit} bytes; pass a reference instead");
    Error::invalid("too-large", message)
}

/// A body in pieces, up to the byte that passes the limit, or the time that it may take.
fn pieces(body: Body, limit: u64) -> gateway_queue::ByteStream {
    let begun = Instant::now();
    Box::pin(try_unfold((body.into_data_stream(), 0), move |(mut body, read)| async move {
        let time = BODY_TIME + Duration::from_secs(read / BODY_BYTES_PER_SECOND);
        let piece = timeout_at(begun + time, body.next()).await.map_err(|_| io::ErrorKind::TimedOut)?;
        let Some(piece) = piece.transpose().map_err(io::Error::other)? else { return Ok(None) };
        let read = read + piece.len() as u64;
        if read > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some((piece, (body, read))))
    }))
}

/// Where the answer is to be posted: what the request says, else the function (`faas.net/callback`).
fn callback_url(headers: &HeaderMap, function: &FunctionStatus, later: &Later) -> Result<Option<String>> {
    let (text, by) = match headers.get(CALLBACK_URL) {
        Some(given) => (given.to_str().map_err(|_| not_text("X-Callback-Url"))?, "X-Callback-Url"),
        None => (function.spec.annotations.get(CALLBACK).map_or("", String::as_str), CALLBACK),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse_callback(text, by, &later.callbacks.egress)?;
    Ok(Some(text.to_owned()))
}

fn delay(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(given) = headers.get(DELAY) else { return Ok(None) };
    let seconds = given.to_str().ok().and_then(|text| text.trim().parse().ok());
    match seconds.filter(|seconds| *seconds <= MAX_DELAY_SECONDS) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => Err(Error::invalid(
            "invalid-delay",
            format!("X-Delay-Seconds wants a whole number of seconds, up to {MAX_DELAY_SECONDS}"),
        )),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(given) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = given.to_str().map_err(|_| not_text("Idempotency-Key"))?;
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        let message = format!("Idempotency-Key wants 1 to {MAX_KEY_BYTES} characters");
        return Err(Error::invalid("invalid-idempotency-key", message));
    }
    Ok(Some(text.to_owned()))
}

fn not_text(header: &str) -> Error {
    Error::invalid("invalid-header", format!("{header} wants visible ASCII characters"))
}

/// What carries the id in the path `/async-function/ID` is not run, or not to its end, if whoever asks may call all of it.
async fn cancel(
    gateway: &Parts,
    asynchronous: &Asynchronous,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<()> {
    let later = &asynchronous.later;
    let path = request.uri().path().strip_prefix("/async-function/").unwrap_or_default();
    let id = percent_decode_str(path).decode_utf8().ok().filter(|id| !id.is_empty()).ok_or_else(no_route)?;
    let id = CallId::new(id.into_owned());
    let _place =
        timeout(CANCEL_WAIT, asynchronous.cancels.acquire()).await.map_err(|_| Error::Overloaded {
            message: "too many calls are being cancelled: try again in a second".into(),
            retry_after: Duration::from_secs(1),
        })?;
    let told = |error| told(error, later.max_body_bytes);
    let (mut functions, mut page) = (BTreeSet::new(), Page::first(CANCEL_PAGE));
    loop {
        let calls = later.queue.find(&id, page).await.map_err(told)?;
        page.after = calls.last().map(|call| call.id);
        let is_last = calls.len() < CANCEL_PAGE;
        let live = calls.into_iter().filter(|call| call.ended.is_none());
        functions.extend(live.map(|call| call.function));
        if is_last {
            break;
        }
    }
    for function in functions {
        match known(gateway, peer, &function, &mut request.headers().clone()).await {
            // Of one that is gone nobody can say any more who may call it.
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let cancelled = later.queue.cancel(&id).await.map_err(told)?;
    if cancelled.ended + cancelled.told == 0 {
        return Err(Error::NotFound(format!("no call with the id {id} is queued, waiting or running")));
    }
    Ok(())
}
