use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use gateway_queue::{CallStatus, Embedded, Limits, Page, Queue, Settings, State};
use gateway_server::{CallbackConfig, Credentials, Later, Worker};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt;
use runtime_api::{CallId, Invocation, SecretValue};
use runtime_egress::Policy;
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, yield_now},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::edge::{Answer, Edge, ok};

/// The largest body of a call, and the largest answer that is posted. More than fits into a record, or into memory.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// What answers are signed with: the secret `signer`, and no other is known.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Longer than any test takes that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway that keeps calls, and what runs them.
pub(crate) struct Queued {
    edge: Edge,
    pub(crate) queue: Arc<dyn Queue>,
    /// How far the queue's clock is ahead of the machine's, in milliseconds.
    ahead: Arc<AtomicU64>,
    worker: Mutex<Option<Arc<Worker>>>,
    /// Cancelled, no more calls are taken.
    pub(crate) no_more: CancellationToken,
    _running: DropGuard,
    _folder: TempDir,
}

impl Queued {
    /// With a worker, and answers posted to this machine.
    pub(crate) fn start() -> Self {
        let queued = Self::idle();
        queued.work();
        queued
    }

    /// Calls are kept, and not run until [`work`](Self::work).
    pub(crate) fn idle() -> Self {
        Self::open(None, "127.0.0.1", Limits::default())
    }

    pub(crate) fn open(basic_auth: Option<Credentials>, egress: &str, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ahead, no_more) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let clock = {
            let ahead = Arc::clone(&ahead);
            Arc::new(move || SystemTime::now() + Duration::from_millis(ahead.load(Ordering::Relaxed)))
        };
        let settings = Settings { limits, ..Settings::default() };
        let queue: Arc<dyn Queue> =
            Arc::new(Embedded::open(&folder.path().join("queue"), settings, clock).unwrap());
        let secret = |name: &runtime_api::SecretName| {
            (name.name() == "signer").then(|| SecretValue::new(SECRET.as_bytes()).unwrap())
        };
        let later = Later {
            queue: Arc::clone(&queue),
            max_body_bytes: MAX_BYTES as u64,
            callbacks: CallbackConfig {
                egress: Policy::parse(egress).unwrap(),
                folder: folder.path().to_owned(),
                max_answer_bytes: MAX_BYTES as u64,
                secrets: Arc::new(secret),
                user_agent: HeaderValue::from_static("fawn/0.1.0"),
            },
        };
        let (edge, worker) = Edge::start_as(basic_auth, None, Some(later), |gateway, registry| {
            Worker::new(gateway, 64, registry).unwrap()
        });
        let running = no_more.clone().drop_guard();
        let worker = Mutex::new(Some(worker));
        Self { edge, queue, ahead, worker, no_more, _running: running, _folder: folder }
    }

    /// Begins to run calls.
    pub(crate) fn work(&self) -> JoinHandle<()> {
        let worker = self.worker.lock().unwrap().take().unwrap();
        tokio::spawn(worker.run(self.no_more.clone()))
    }

    /// Lets time pass for the queue.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        self.queue.wake();
    }

    /// Asks for a call that carries that id and these headers besides.
    pub(crate) async fn push(&self, target: &str, id: &str, headers: &[&str], body: &str) -> Answer {
        let id = format!("X-Call-Id: {id}");
        let headers: Vec<&str> = [&*id].into_iter().chain(headers.iter().copied()).collect();
        self.send("POST", &format!("/async-function/{target}"), &headers, body).await
    }

    /// The same of a call that is to be kept.
    pub(crate) async fn keep(&self, target: &str, id: &str, headers: &[&str], body: &str) {
        let answer = self.push(target, id, headers, body).await;
        assert_eq!((answer.status, &*answer.body), (202, ""), "{target} {id}");
    }

    /// What is known of calls with that id.
    pub(crate) async fn known(&self, id: &str) -> Vec<CallStatus> {
        self.queue.find(&CallId::new(id), Page::first(1000)).await.unwrap()
    }

    /// The call with that id, once it is in that state.
    pub(crate) async fn reaches(&self, id: &str, state: State) -> CallStatus {
        self.reaches_after(id, state, 0).await
    }

    /// The same, once there were so many attempts.
    pub(crate) async fn reaches_after(&self, id: &str, state: State, attempts: usize) -> CallStatus {
        let wanted = |call: &CallStatus| call.state == state && call.attempts.len() >= attempts;
        until(&format!("{id} is {state:?} after {attempts} attempts"), async || {
            self.known(id).await.into_iter().find(wanted)
        })
        .await
    }

    /// How many calls of all functions there are that have not ended.
    pub(crate) async fn kept(&self) -> u64 {
        let counts = self.queue.counts().await.unwrap();
        counts.iter().map(|of| of.queued + of.running + of.waiting + of.dead).sum()
    }

    /// Adds a function that tells what it sees, and answers with the body.
    pub(crate) fn seeing(&self, name: &str) -> mpsc::UnboundedReceiver<Seen> {
        let (tell, told) = mpsc::unbounded_channel();
        self.provider.script(name, move |invocation: Invocation| {
            let tell = tell.clone();
            async move {
                let (parts, body) = invocation.request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (method, target) = (parts.method, parts.uri.to_string());
                tell.send(Seen { method, target, headers: parts.headers, body: body.clone() }).unwrap();
                ok(body)
            }
        });
        told
    }
}

impl Deref for Queued {
    type Target = Edge;

    fn deref(&self) -> &Edge {
        &self.edge
    }
}

/// A call as its function sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// The values of a header, joined; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        values(&self.headers, name)
    }
}

/// The values of a header, joined.
pub(crate) fn values(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    values.join(" | ")
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        yield_now().await;
    }
}

/// The next of a channel, which must come.
pub(crate) async fn next<T>(channel: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, channel.recv()).await.unwrap().unwrap()
}
