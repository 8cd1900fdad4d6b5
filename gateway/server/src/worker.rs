//! Runs the calls of a queue.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use gateway_queue::{Delivery, Lease, Outcome, Queue, Room, Then};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header::CONTENT_LENGTH};
use jiff::Timestamp;
use prometheus::Registry;
use runtime_api::{
    Admitted, Body, CALLBACK_SECRET, CallId, Error, FunctionName, Invocation, Result, SecretName,
};
use runtime_http::{FunctionCall, Peer, answer};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::{
    Gateway,
    async_functions::Asynchronous,
    callback::{AT_ONCE, Answered, Callbacks},
    gateway::Parts,
    invoke::{CallBody, Invoked, invoke},
    measured,
    queue_metrics::QueueMetrics,
    retry::{RetryPolicy, asked_wait, until_room},
    shares::{Share, Shares},
    spool::{ANSWER_TOO_LARGE, Spool},
};

/// Calls that one look at the queue takes at most.
const BATCH: usize = 64;
/// Marks what some part of the platform answered in place of the function (`OpenFaaS`).
const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// Takes calls from a queue, makes them as if they came in just now, posts their answers and puts on record what
/// became of them.
pub struct Worker {
    gateway: Arc<Parts>,
    queue: Arc<dyn Queue>,
    metrics: Arc<QueueMetrics>,
    callbacks: Callbacks,
    /// Calls at once of all functions.
    places: Arc<Semaphore>,
    shares: Arc<Shares>,
}

impl Worker {
    /// A worker for a gateway's queue, that makes at most so many calls at once. Registers its metrics.
    ///
    /// # Errors
    /// The gateway has no queue, or the registry has a worker's metrics already.
    pub fn new(gateway: &Gateway, max_calls: usize, registry: &Registry) -> Result<Arc<Self>> {
        let gateway = gateway.parts();
        let asynchronous = gateway.later.as_ref();
        let Asynchronous { later, metrics, .. } =
            asynchronous.ok_or_else(|| Error::internal("the gateway has no queue"))?;
        let queue = later.queue.clone();
        Ok(Arc::new(Self {
            shares: Shares::new(max_calls, AT_ONCE, Box::new(move || queue.wake())),
            queue: later.queue.clone(),
            metrics: metrics.clone(),
            callbacks: Callbacks::new(gateway.clone(), later.callbacks.clone(), registry)?,
            places: Arc::new(Semaphore::new(max_calls)),
            gateway,
        }))
    }

    /// Runs calls until shutdown, and returns when those that run then have ended.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let shares = self.shares.clone();
        let room: Room = Arc::new(move |function| shares.room(function));
        while let Some(deliveries) = self.next(&room, &shutdown).await {
            for (delivery, place) in deliveries {
                let share = self.shares.take(&delivery.function, place);
                let span = info_span!("asynchronous call", call_id = %delivery.call_id, function = %delivery.function);
                tracker.spawn(self.clone().work(delivery, share).instrument(span));
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    /// Calls, each with its place; `None` once there will be no more.
    async fn next(
        &self,
        room: &Room,
        shutdown: &CancellationToken,
    ) -> Option<Vec<(Delivery, OwnedSemaphorePermit)>> {
        let taking = async {
            let mut places = self.places.clone().acquire_owned().await.ok()?;
            while let (1..BATCH, Ok(more)) = (places.num_permits(), self.places.clone().try_acquire_owned()) {
                places.merge(more);
            }
            match self.queue.next(places.num_permits(), room.clone()).await {
                Ok(deliveries) => Some(
                    deliveries
                        .into_iter()
                        .filter_map(|delivery| Some((delivery, places.split(1)?)))
                        .collect(),
                ),
                Err(error) => {
                    debug!(%error, "no more calls are taken");
                    None
                }
            }
        };
        select! {
            biased;
            () = shutdown.cancelled() => None,
            taken = taking => taken,
        }
    }

    /// Sees one call to its end, for this time.
    async fn work(self: Arc<Self>, delivery: Delivery, mut share: Share) {
        let (mut taken, body) = Taken::of(delivery);
        let Ended { began, too_much, answer, mut outcome } = select! {
            biased;
            () = taken.lease.cancelled() => Ended::cancelled(),
            ended = self.attempt(&taken, body) => ended,
        };
        share.learn(began, too_much);
        if let (Some(answer), Some(url)) = (answer, &taken.callback_url) {
            share.post();
            let posted = select! {
                () = taken.lease.cancelled() => Err("the call was cancelled".into()),
                posted = self.callbacks.post(url, &taken, &answer) => posted,
            };
            if let Err(error) = posted {
                warn!(%error, "the answer was not posted");
                outcome.error = format!("the answer was not posted: {error}");
            }
        }
        drop(share);
        let then = outcome.then;
        match taken.lease.settle(outcome).await {
            Ok(()) => self.metrics.processed(&taken.function, then),
            Err(error) => warn!(%error, "what became of the call is not on record; it may run again"),
        }
    }

    /// Makes a call, and tells what is to come of it.
    async fn attempt(&self, taken: &Taken, body: Body) -> Ended {
        let began = Instant::now();
        let annotations = match self.annotations(&taken.function).await {
            Ok(annotations) => annotations,
            // Nobody can tell how often it may be tried, and it was not run.
            Err(error) => return Ended::put_back(began, &error, self.queue.now()),
        };
        let policy = RetryPolicy::of(&annotations);
        if taken.attempt > policy.tries() {
            return Ended::lost(began, &policy, signing(&annotations, &taken.function));
        }
        let Invoked { response, error: refusal } = self.call(taken, body).await;
        let (mut parts, answer) = response.into_parts();
        let asked = asked_wait(parts.status, &parts.headers, Timestamp::now());
        let too_much = refusal.as_deref().is_some_and(is_too_much);
        let kept = self.callbacks.keep(answer, taken.callback_url.is_some()).await;
        let duration = began.elapsed();
        let problem = kept.as_ref().err().or(refusal.as_deref());
        let failed = problem.is_some() || policy.wants(parts.status) || parts.headers.contains_key(INTERNAL);
        let error = match problem {
            Some(problem) => problem.to_string(),
            None if failed => format!("answered with {}", parts.status),
            None => String::new(),
        };
        // One that did not come whole is none.
        let status = kept.is_ok().then_some(parts.status.as_u16());
        let then = match failed {
            false => Then::Succeeded,
            // It was not run, and it is not the call's fault.
            true if too_much => Then::PutBack(self.queue.now() + until_room(asked, rand::random())),
            // It would be too large again.
            true if problem.is_some_and(|problem| problem.code() == ANSWER_TOO_LARGE) => Then::Dead,
            true if taken.attempt < policy.tries() => {
                Then::RetryAt(self.queue.now() + policy.wait(taken.attempt, asked, rand::random()))
            }
            true => Then::Dead,
        };
        let attempt = taken.attempt;
        match then {
            Then::Dead => warn!(attempt, status, ?duration, error, "given up; it is a dead letter"),
            Then::RetryAt(_) => info!(attempt, status, ?duration, error, "failed; it is tried again"),
            _ => debug!(attempt, status, ?duration, error, "made"),
        }
        parts.headers.remove(CONTENT_LENGTH);
        let (status_posted, headers, body) = match kept {
            Ok(body) => (parts.status, parts.headers, body),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), Spool::empty()),
        };
        let done = matches!(then, Then::Succeeded | Then::Dead);
        Ended {
            began,
            too_much: too_much || parts.status == StatusCode::TOO_MANY_REQUESTS,
            answer: done.then(|| Answered {
                id: answer_id(),
                status: status_posted,
                headers,
                body,
                duration,
                tries: policy.tries(),
                signing: signing(&annotations, &taken.function),
            }),
            outcome: Outcome { status, duration, error, then },
        }
    }

    /// What the function says of its calls, as it is deployed now.
    async fn annotations(&self, function: &FunctionName) -> Result<BTreeMap<String, String>> {
        match self.gateway.provider.status(function).await {
            Ok(status) => {
                self.metrics.found(function, &status.spec.annotations);
                Ok(status.spec.annotations)
            }
            // The call itself will tell.
            Err(Error::NotFound(_)) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// As if the call came in now, from where it came.
    async fn call(&self, taken: &Taken, body: Body) -> Invoked {
        let mut request = Request::new(body);
        *request.method_mut() = taken.method.clone();
        *request.headers_mut() = taken.headers.clone();
        match taken.path_and_query.parse() {
            Ok(target) => *request.uri_mut() = target,
            Err(error) => {
                let error = Error::internal(error);
                let response = answer(&error, &taken.call_id).map(CallBody::from);
                return Invoked { response, error: Some(error.into()) };
            }
        }
        // It was let in when the call was accepted.
        request.extensions_mut().insert(Admitted);
        let invocation =
            Invocation { function: taken.function.clone(), call_id: taken.call_id.clone(), request };
        let call = FunctionCall { invocation, stalled: None };
        invoke(&self.gateway, &taken.peer(), call).await
    }
}

/// A call that was taken, without its body.
pub(crate) struct Taken {
    pub(crate) function: FunctionName,
    pub(crate) call_id: CallId,
    /// The number of this attempt, from 1 on.
    pub(crate) attempt: u32,
    method: Method,
    path_and_query: String,
    headers: HeaderMap,
    callback_url: Option<String>,
    lease: Box<dyn Lease>,
}

impl Taken {
    fn of(delivery: Delivery) -> (Self, Body) {
        let Delivery { function, call_id, attempt, method, path_and_query, headers, callback_url, .. } =
            delivery;
        let taken = Self {
            function,
            call_id,
            attempt,
            method,
            path_and_query,
            headers,
            callback_url,
            lease: delivery.lease,
        };
        (taken, measured::body(delivery.body, delivery.body_bytes))
    }

    /// Who asked for the call: the last one that its gateway knew of.
    pub(crate) fn peer(&self) -> Peer {
        let chain = self.headers.get("x-forwarded-for").and_then(|chain| chain.to_str().ok());
        let last = chain.and_then(|chain| chain.rsplit(',').next()?.trim().parse().ok());
        let address = last.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(address, 0).into()
    }
}

/// What became of an attempt.
struct Ended {
    began: Instant,
    /// Whether there was no room for the call.
    too_much: bool,
    outcome: Outcome,
    /// What is to be posted, unless the call is tried again.
    answer: Option<Answered>,
}

impl Ended {
    fn cancelled() -> Self {
        let outcome =
            Outcome { status: None, duration: Duration::ZERO, error: String::new(), then: Then::Cancelled };
        Self { began: Instant::now(), too_much: false, outcome, answer: None }
    }

    /// A call of a function that nobody can tell the rules of now.
    fn put_back(began: Instant, error: &Error, now: SystemTime) -> Self {
        info!(%error, "the function does not say how its calls are tried; it is tried later");
        let then = Then::PutBack(now + until_room(None, rand::random()));
        let outcome = Outcome { status: None, duration: Duration::ZERO, error: error.to_string(), then };
        Self { began, too_much: false, outcome, answer: None }
    }

    /// A call that was never settled, as often as it may be tried.
    fn lost(began: Instant, policy: &RetryPolicy, signing: Option<SecretName>) -> Self {
        let error = "given up: it has run as often as it may without an end on record".to_owned();
        warn!(error, "given up; it is a dead letter");
        let answer = Answered {
            id: answer_id(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::new(),
            body: Spool::empty(),
            duration: Duration::ZERO,
            tries: policy.tries(),
            signing,
        };
        let outcome = Outcome { status: None, duration: Duration::ZERO, error, then: Then::Dead };
        Self { began, too_much: false, outcome, answer: Some(answer) }
    }
}

/// Another one for each answer, also where a call is replayed.
fn answer_id() -> String {
    format!("answer-{:032x}", rand::random::<u128>())
}

/// Whether an error says that there is no room for the call now.
fn is_too_much(error: &Error) -> bool {
    matches!(error, Error::TooManyCalls { .. } | Error::Overloaded { .. } | Error::TooManyAttempts { .. })
}

/// What the function wants its answers signed with. A name that cannot be a secret was refused when it was deployed.
fn signing(annotations: &BTreeMap<String, String>, function: &FunctionName) -> Option<SecretName> {
    SecretName::new(annotations.get(CALLBACK_SECRET)?, function.namespace()).ok()
}
