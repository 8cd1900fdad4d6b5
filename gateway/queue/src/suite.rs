//! What every engine of [`Queue`] must do: stories of one thing each, and chance against a model.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use http::{HeaderMap, Method};
use runtime_api::{CallId, FunctionName};

use crate::{
    Accepted, ByteStream, CallStatus, Cancelled, Clock, Content, Delivery, EntryId, Error, FunctionCounts,
    NewCall, Outcome, Page, Queue, Room, State, Then, Which,
};

pub(crate) mod model;
mod stories;

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<Mutex<SystemTime>>);

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000))))
    }

    pub(crate) fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    pub(crate) fn advance(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    pub(crate) fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// An engine under test: opened as often as a story wants, always on what the last one left.
pub(crate) struct Rig {
    pub(crate) clock: TestClock,
    pub(crate) open: Box<dyn Fn() -> Arc<dyn Queue>>,
}

impl Rig {
    pub(crate) fn open(&self) -> Arc<dyn Queue> {
        (self.open)()
    }

    pub(crate) fn advance(&self, queue: &Arc<dyn Queue>, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        queue.wake();
    }
}

type Story = fn(Rig) -> Pin<Box<dyn Future<Output = ()>>>;

/// Every story with its name. Each wants a fresh engine.
pub(crate) fn stories() -> Vec<(&'static str, Story)> {
    vec![
        ("a call comes out as it went in", |rig| Box::pin(stories::comes_out_as_it_went_in(rig))),
        ("a function's calls come in order", |rig| Box::pin(stories::come_in_order(rig))),
        ("functions take turns", |rig| Box::pin(stories::functions_take_turns(rig))),
        ("a retry holds up nobody", |rig| Box::pin(stories::a_retry_holds_up_nobody(rig))),
        ("a call that is put back was not tried", |rig| Box::pin(stories::put_back_was_not_tried(rig))),
        ("whoever waits is woken", |rig| Box::pin(stories::whoever_waits_is_woken(rig))),
        ("a call that its worker lost comes again", |rig| Box::pin(stories::lost_by_its_worker(rig))),
        ("a call that ran at the end comes again", |rig| Box::pin(stories::ran_at_the_end(rig))),
        ("one key is one call", |rig| Box::pin(stories::one_key_is_one_call(rig))),
        ("all calls of a function are cancelled at once", |rig| {
            Box::pin(stories::all_calls_of_a_function_are_cancelled_at_once(rig))
        }),
        ("cancelled calls do not run", |rig| Box::pin(stories::cancelled_calls_do_not_run(rig))),
        ("dead letters are replayed and purged", |rig| Box::pin(stories::dead_letters(rig))),
        ("ended calls are forgotten", |rig| Box::pin(stories::ended_calls_are_forgotten(rig))),
        ("a body that breaks off is no call", |rig| Box::pin(stories::a_body_that_breaks_off(rig))),
        ("a closed queue says so", |rig| Box::pin(stories::a_closed_queue_says_so(rig))),
    ]
}

pub(crate) fn function(name: &str) -> FunctionName {
    FunctionName::parse(name).unwrap()
}

pub(crate) fn call(name: &str, call_id: &str, body: impl Into<Bytes>) -> NewCall {
    NewCall {
        function: function(name),
        method: Method::POST,
        path_and_query: "/".into(),
        headers: HeaderMap::new(),
        call_id: CallId::new(call_id),
        callback_url: None,
        not_before: None,
        idempotency_key: None,
        body: Content::Bytes(body.into()),
    }
}

pub(crate) fn room(places: usize) -> Room {
    Arc::new(move |_| places)
}

/// What is due now, at most `max`.
pub(crate) async fn take(queue: &Arc<dyn Queue>, max: usize) -> Vec<Delivery> {
    queue.next(max, room(max)).await.unwrap()
}

pub(crate) async fn take_one(queue: &Arc<dyn Queue>) -> Delivery {
    take(queue, 1).await.remove(0)
}

pub(crate) async fn body(delivery: &mut Delivery) -> Vec<u8> {
    let pieces: Vec<Bytes> = delivery.take_body().into_stream().try_collect().await.unwrap();
    pieces.concat()
}

pub(crate) fn outcome(then: Then, status: u16) -> Outcome {
    Outcome { status: Some(status), duration: Duration::from_millis(12), error: String::new(), then }
}

pub(crate) async fn find(queue: &Arc<dyn Queue>, call_id: &str) -> Vec<CallStatus> {
    queue.find(&CallId::new(call_id), Page::first(1000)).await.unwrap()
}

pub(crate) async fn state(queue: &Arc<dyn Queue>, call_id: &str) -> State {
    let [status] = <[_; 1]>::try_from(find(queue, call_id).await).unwrap();
    status.state
}

/// Returns when the engine has done all that was asked for, and what became due or old.
pub(crate) async fn settle_down(queue: &Arc<dyn Queue>) {
    for _ in 0..3 {
        queue.wake();
        queue.purge(&function("nobody"), Which::One(EntryId(u64::MAX))).await.unwrap();
    }
}

/// Whether a wait is still one after the engine has done all it can.
pub(crate) async fn waits<T>(queue: &Arc<dyn Queue>, wait: &mut (impl Future<Output = T> + Unpin)) -> bool {
    let before = (&mut *wait).now_or_never().is_none();
    settle_down(queue).await;
    before && wait.now_or_never().is_none()
}
