//! The line that a handler's answer leaves in its function's log (`OpenFaaS` of-watchdog).

use std::sync::Arc;

use http::{Method, Request, StatusCode, header::USER_AGENT, uri::PathAndQuery};
use runtime_api::{Body, CallId};
use tokio::time::Instant;

use crate::{
    function_log::{FunctionLog, LogEvent},
    pool::Call,
};

/// What is known of a call before its answer.
pub(crate) struct Access {
    log: Arc<FunctionLog>,
    method: Method,
    target: PathAndQuery,
    call_id: Option<CallId>,
    start: Instant,
}

impl Access {
    /// None where nobody keeps the log, and for Kubernetes's probes, of which of-watchdog tells nothing either.
    pub(crate) fn of(call: &Call, request: &Request<Body>, call_id: &CallId) -> Option<Self> {
        let log = call.pool.log()?.clone();
        let agent = request.headers().get(USER_AGENT);
        if agent.is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe")) {
            return None;
        }
        let target =
            request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some(Self {
            method: request.method().clone(),
            target,
            call_id: log.style().call_id.then(|| call_id.clone()),
            start: call.start,
            log,
        })
    }

    /// The answer is at its end, after that many bytes of body.
    pub(crate) fn answered(self, status: StatusCode, bytes: u64) {
        let Self { log, method, target, call_id, start } = self;
        let took = start.elapsed();
        let event = LogEvent::Answered { method, target, status, bytes, took, call_id };
        log.push_at(start.into_std() + took, event);
    }
}
