//! Answers of asynchronous calls on their way to those who want them.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header::USER_AGENT};
use http_body_util::BodyExt;
use prometheus::{IntCounterVec, Opts, Registry};
use ring::hmac::Key;
use runtime_api::{Body, Error, Result, SecretName};
use runtime_egress::{Policy, Timeouts, may_reach, send};
use runtime_http::{FunctionCall, forward_request};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::{
    async_functions::push,
    functions::plain,
    gateway::Parts,
    invoke::CallBody,
    own_address::{is_function, is_own},
    signing::{self, SigningSecrets, sign},
    spool::{Spool, SpoolRoom},
    worker::Taken,
};

/// Where the answer of a call is to be posted (`OpenFaaS`).
pub(crate) const CALLBACK_URL: &str = "x-callback-url";

/// Longer than any URL that servers take.
const MAX_URL_BYTES: usize = 8 << 10;
/// Answers that are posted at once, or wait to be posted again.
pub(crate) const AT_ONCE: usize = 256;
/// How often an answer is posted.
const TRIES: u32 = 5;
/// Before the second time; it doubles from then on, and half of it is chance.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// From the request to the head of the target's own answer, besides the time that sending a large answer takes.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// For all tries together, besides the same.
const TOTAL_TIME: Duration = Duration::from_secs(60);
/// A target that takes less is too slow.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// What is read of the target's own answer.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// How answers are posted.
#[derive(Clone)]
pub struct CallbackConfig {
    /// Where to.
    pub egress: Policy,
    /// Where answers wait that are too large for memory, in files without a name.
    pub folder: PathBuf,
    /// The largest answer that is posted, in bytes.
    pub max_answer_bytes: u64,
    /// What they are signed with, where functions ask for that.
    pub secrets: SigningSecrets,
    /// Who posts.
    pub user_agent: HeaderValue,
}

/// Reads a URL that an answer can be posted to. One that names an address which may not be reached is refused here;
/// what a name leads to is looked at when the answer is posted.
///
/// # Errors
/// `Invalid`, with what is wrong; `by` is who gave the URL.
pub(crate) fn parse_callback(text: &str, by: &str, policy: &Policy) -> Result<Uri> {
    let invalid = |problem: &str| Error::invalid("invalid-callback-url", format!("{by} {problem}"));
    if text.len() > MAX_URL_BYTES {
        return Err(invalid("is too long"));
    }
    let uri: Uri =
        text.parse().map_err(|_| invalid("is no URL: give one such as https://example.com/done"))?;
    let default_port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(invalid("must begin with http:// or https://")),
    };
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| invalid("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("must not hold a user name"));
    }
    let host = authority.host();
    let port = match authority.port_u16() {
        Some(port) => port,
        None if authority.as_str() == host => default_port,
        None => return Err(invalid("has a port that is no number below 65536")),
    };
    if is_own(&uri) {
        let ours = is_function(&uri).then_some(uri);
        return ours
            .ok_or_else(|| invalid("leads to this gateway: write http://gateway.openfaas:8080/function/NAME or /async-function/NAME"));
    }
    if !may_reach(policy, host, port) {
        let message =
            format!("{by} leads to {host}, which this gateway does not post to (--callback-egress)");
        return Err(Error::invalid("callback-denied", message));
    }
    Ok(uri)
}

/// An answer to be posted.
pub(crate) struct Answered {
    /// What it is known by to those who get it more than once.
    pub(crate) id: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Spool,
    /// The time that the last attempt took.
    pub(crate) duration: Duration,
    /// How often the call may be tried in all.
    pub(crate) tries: u32,
    /// The secret that it is to be signed with, if it is.
    pub(crate) signing: Option<SecretName>,
}

impl Answered {
    /// What a large one takes besides.
    fn time_to_send(&self) -> Duration {
        Duration::from_secs(self.body.len_bytes() / BYTES_PER_SECOND)
    }
}

/// Posts answers, not too many at once.
pub(crate) struct Callbacks {
    gateway: Arc<Parts>,
    config: CallbackConfig,
    places: Semaphore,
    room: Arc<SpoolRoom>,
    posted: IntCounterVec,
}

/// Why an answer was not posted.
struct Problem {
    text: String,
    /// Whether it makes no sense to try again.
    lasts: bool,
}

impl Callbacks {
    pub(crate) fn new(gateway: Arc<Parts>, config: CallbackConfig, registry: &Registry) -> Result<Self> {
        let posted =
            Opts::new("fawn_callbacks_total", "Answers of asynchronous calls that were to be posted");
        let posted = IntCounterVec::new(posted, &["outcome"]).map_err(Error::internal)?;
        registry.register(Box::new(posted.clone())).map_err(Error::internal)?;
        let room = SpoolRoom::new(&config.folder, config.max_answer_bytes);
        Ok(Self { gateway, config, places: Semaphore::new(AT_ONCE), room, posted })
    }

    /// Reads an answer to its end, which is when its call ends, and keeps it if it is wanted.
    pub(crate) async fn keep(&self, answer: CallBody, is_wanted: bool) -> Result<Spool> {
        let keep = is_wanted.then_some(self.config.max_answer_bytes);
        Spool::fill(answer, &self.room, keep).await
    }

    /// Posts an answer, several times if need be.
    ///
    /// # Errors
    /// Why it was given up.
    pub(crate) async fn post(&self, url: &str, taken: &Taken, answer: &Answered) -> Result<(), String> {
        let _place = self.places.acquire().await;
        let posted = timeout(TOTAL_TIME + answer.time_to_send(), self.try_to_post(url, taken, answer)).await;
        let outcome = posted.unwrap_or_else(|_| Err("its target takes too long".into()));
        let label = if outcome.is_ok() { "posted" } else { "given_up" };
        self.posted.with_label_values(&[label]).inc();
        outcome
    }

    async fn try_to_post(&self, url: &str, taken: &Taken, answer: &Answered) -> Result<(), String> {
        // What was allowed when the call was accepted need not be so any more.
        let uri = parse_callback(url, "the callback URL", &self.config.egress);
        let uri = uri.map_err(|error| error.to_string())?;
        let key = answer.signing.as_ref().map(|secret| self.key(secret)).transpose();
        let key = key.map_err(|error| error.to_string())?;
        // Names that are looked up slowly hold up no other answer.
        let egress = self.config.egress.for_function(None).map_err(|error| error.to_string())?;
        let (mut tries, mut pause) = (1, FIRST_PAUSE);
        loop {
            let problem = match self.post_once(&egress, &uri, key.as_ref(), taken, answer).await {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) => Problem { text: format!("{status} was answered"), lasts: lasts(status) },
                Err(problem) => problem,
            };
            if problem.lasts || tries == TRIES {
                return Err(problem.text);
            }
            debug!(tries, problem = problem.text, "an answer is to be posted again");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            (tries, pause) = (tries + 1, pause * 2);
        }
    }

    fn key(&self, secret: &SecretName) -> Result<Key> {
        let value = (self.config.secrets)(secret);
        let value =
            value.ok_or_else(|| Error::NotFound(format!("there is no secret {secret} to sign with")))?;
        signing::key(&value)
    }

    async fn post_once(
        &self,
        egress: &Policy,
        uri: &Uri,
        key: Option<&Key>,
        taken: &Taken,
        answer: &Answered,
    ) -> Result<StatusCode, Problem> {
        let in_passing = |error: Error| Problem { text: error.to_string(), lasts: false };
        let mut headers =
            self.headers(taken, answer).map_err(|error| Problem { text: error.to_string(), lasts: true })?;
        if let Some(key) = key {
            sign(&mut headers, key, &answer.id, SystemTime::now(), &answer.body).await.map_err(in_passing)?;
        }
        let mut request = Request::new(answer.body.body().map_err(in_passing)?);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        if is_own(uri) {
            return Ok(self.call(taken, request).await);
        }
        let timeouts = Timeouts { connect: CONNECT_TIME, first_byte: ANSWER_TIME + answer.time_to_send() };
        let response = send(egress, request, timeouts).await.map_err(|error| match error {
            runtime_egress::Error::Denied { .. } => Problem {
                text: "this gateway does not post to its address, unless --callback-egress says so".into(),
                lasts: true,
            },
            error => Problem { text: error.to_string(), lasts: false },
        })?;
        let (parts, mut reply) = response.into_parts();
        // Read so that the server sees a client that listens. What it says has no meaning, and so neither has its end.
        let read = async {
            let mut left = MAX_REPLY_BYTES;
            while let (Some(Ok(frame)), 1..) = (reply.frame().await, left) {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        let _ = timeout(ANSWER_TIME, read).await;
        Ok(parts.status)
    }

    /// Hands an answer to a function behind this gateway.
    async fn call(&self, taken: &Taken, mut request: Request<Body>) -> StatusCode {
        let headers = request.headers_mut();
        // Whoever asked for the first call asks for this one, whatever the function answered.
        for name in ["authorization", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"] {
            headers.remove(name);
        }
        forward_request(headers, Some(&taken.peer().header));
        let (peer, later) = (taken.peer(), request.uri().path().starts_with("/async-function/"));
        let response = match (FunctionCall::of(taken.call_id.clone(), request), &self.gateway.later) {
            (Err(response), _) => response.map(CallBody::from),
            (Ok(call), Some(asynchronous)) if later => push(&self.gateway, asynchronous, &peer, call).await,
            (Ok(call), _) => plain(&self.gateway, &peer, call).await,
        };
        // Calls end when their answer was read, and nobody wants that of this one.
        let (parts, body) = response.into_parts();
        match Spool::fill(body, &self.room, None).await {
            Ok(_) => parts.status,
            Err(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The function's own headers, and what `OpenFaaS` adds to them.
    fn headers(&self, taken: &Taken, answer: &Answered) -> Result<HeaderMap, http::Error> {
        let mut headers = answer.headers.clone();
        for (name, value) in [
            ("x-call-id", taken.call_id.to_string()),
            ("x-function-name", taken.function.to_string()),
            ("x-function-status", answer.status.as_str().to_owned()),
            ("x-duration-seconds", format!("{:.6}", answer.duration.as_secs_f64())),
            ("x-retry", taken.attempt.min(answer.tries).saturating_sub(1).to_string()),
            ("x-retry-max", answer.tries.saturating_sub(1).to_string()),
        ] {
            headers.insert(HeaderName::from_static(name), value.try_into()?);
        }
        headers.insert(USER_AGENT, self.config.user_agent.clone());
        Ok(headers)
    }
}

/// Whether an answer's target has said no for good.
fn lasts(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_looked_at_before_a_call_is_accepted() {
        let policy = Policy::public();
        for (url, code) in [
            ("https://example.com/done?x=1", None),
            ("http://1.1.1.1:8080", None),
            ("http://gateway.openfaas:8080/async-function/next", None),
            ("http://gateway.openfaas:8080/system/info", Some("invalid-callback-url")),
            ("ftp://example.com", Some("invalid-callback-url")),
            ("/done", Some("invalid-callback-url")),
            ("https://", Some("invalid-callback-url")),
            ("http://user@example.com/", Some("invalid-callback-url")),
            ("http://user:80@example.com:80/", Some("invalid-callback-url")),
            ("http://example.com:99999/", Some("invalid-callback-url")),
            ("http://example.com:/", Some("invalid-callback-url")),
            ("http://exa mple.com/", Some("invalid-callback-url")),
            ("http://127.0.0.1/", Some("callback-denied")),
            ("http://[::1]/", Some("callback-denied")),
            ("http://[::ffff:10.0.0.1]/", Some("callback-denied")),
            ("http://169.254.169.254/latest/meta-data", Some("callback-denied")),
        ] {
            let refused = parse_callback(url, "X-Callback-Url", &policy).err();
            assert_eq!(refused.as_ref().map(Error::code), code, "{url}");
        }
        let long = format!("http://example.com/{}", "x".repeat(MAX_URL_BYTES));
        assert!(parse_callback(&long, "", &policy).is_err());
        assert!(parse_callback("http://127.0.0.1/", "", &Policy::parse("127.0.0.1").unwrap()).is_ok());
    }

    #[test]
    fn some_answers_are_final() {
        for (status, last) in
            [(400, true), (404, true), (408, false), (429, false), (500, false), (302, false)]
        {
            assert_eq!(lasts(StatusCode::from_u16(status).unwrap()), last, "{status}");
        }
    }
}
