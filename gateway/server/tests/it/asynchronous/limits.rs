//! How many calls run at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gateway_queue::State;
use http::Response;
use runtime_api::{Error, Result};
use tokio::sync::{Semaphore, watch};

use super::{
    queued::{Queued, until},
    target::status_of,
};

/// A function that has room for so many calls, and holds each until it is let go.
struct Narrow {
    running: watch::Receiver<usize>,
    let_go: Arc<Semaphore>,
    refused: Arc<AtomicUsize>,
}

impl Narrow {
    fn add(
        gateway: &Queued,
        name: &str,
        room: usize,
        refuse: fn() -> Result<Response<runtime_api::Body>>,
    ) -> Self {
        let (running, receiver) = watch::channel(0);
        let (running, let_go) = (Arc::new(running), Arc::new(Semaphore::new(0)));
        let refused = Arc::new(AtomicUsize::new(0));
        let narrow = Self { running: receiver, let_go: Arc::clone(&let_go), refused: Arc::clone(&refused) };
        gateway.provider.script(name, move |_| {
            let (running, let_go, refused) =
                (Arc::clone(&running), Arc::clone(&let_go), Arc::clone(&refused));
            async move {
                if *running.borrow() >= room {
                    refused.fetch_add(1, Ordering::Relaxed);
                    return refuse();
                }
                running.send_modify(|running| *running += 1);
                let_go.acquire().await.unwrap().forget();
                running.send_modify(|running| *running -= 1);
                Ok(status_of(200))
            }
        });
        narrow
    }

    async fn runs(&mut self, calls: usize) {
        let reached = self.running.wait_for(|running| *running == calls);
        tokio::time::timeout(super::queued::PATIENCE, reached).await.unwrap().unwrap();
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    async fn refuses(&self, calls: usize) {
        until(&format!("{calls} are refused"), async || (self.refused() >= calls).then_some(())).await;
    }
}

#[tokio::test]
async fn what_there_is_no_room_for_is_put_back_and_costs_no_attempt() {
    let gateway = Queued::start();
    let mut narrow = Narrow::add(&gateway, "f", 1, || Err(Error::TooManyCalls { max_inflight: 1 }));
    gateway.provider.annotate("f", "com.openfaas.retry.attempts", "0");
    gateway.keep("f", "first", &[], "").await;
    narrow.runs(1).await;
    gateway.keep("f", "second", &[], "").await;
    // However often: it is not the call's fault.
    for times in 1..4 {
        narrow.refuses(times).await;
        let refused = gateway.reaches("second", State::Waiting).await;
        assert!(refused.last_error.starts_with("Concurrent request limit exceeded"), "{refused:?}");
        gateway.pass(Duration::from_secs(3600));
    }
    narrow.refuses(4).await;
    narrow.let_go.add_permits(2);
    gateway.reaches("first", State::Succeeded).await;
    gateway.reaches("second", State::Waiting).await;
    gateway.pass(Duration::from_secs(3600));
    gateway.reaches("second", State::Succeeded).await;
}

#[tokio::test]
async fn a_function_that_has_too_many_calls_gets_fewer_and_others_none_the_less() {
    let refusals: [fn() -> Result<Response<runtime_api::Body>>; 2] =
        [|| Err(Error::TooManyCalls { max_inflight: 4 }), || Ok(status_of(429))];
    for refuse in refusals {
        let gateway = Queued::idle();
        gateway.provider.add("other");
        let mut narrow = Narrow::add(&gateway, "f", 4, refuse);
        for (annotation, value) in [("attempts", "1000"), ("min_wait", "1s"), ("max_wait", "1s")] {
            gateway.provider.annotate("f", &format!("com.openfaas.retry.{annotation}"), value);
        }
        for id in 0..40 {
            gateway.keep("f", &id.to_string(), &[], "").await;
        }
        gateway.work();
        narrow.runs(4).await;
        // Of the 16 of the beginning.
        narrow.refuses(12).await;
        gateway.keep("other", "other", &[], "").await;
        gateway.reaches("other", State::Succeeded).await;
        narrow.let_go.add_permits(40);
        for id in 0..40 {
            until("all of them run in the end", async || {
                let state = gateway.known(&id.to_string()).await[0].state;
                if state == State::Waiting {
                    gateway.pass(Duration::from_secs(1));
                }
                (state == State::Succeeded).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_function_is_not_asked_for_more_than_it_was_found_to_do() {
    let gateway = Queued::idle();
    let mut narrow = Narrow::add(&gateway, "f", 1, || Ok(status_of(429)));
    for id in 0..64 {
        gateway.keep("f", &id.to_string(), &[], "").await;
    }
    gateway.work();
    narrow.runs(1).await;
    gateway.provider.add("other");
    // Calls of another function are taken in turns with those that there is room for: now there is none.
    let mut others = 0;
    let counts = until("nothing more is refused", async || {
        let refused = narrow.refused();
        others += 1;
        let id = format!("other-{others}");
        gateway.keep("other", &id, &[], "").await;
        gateway.reaches(&id, State::Succeeded).await;
        let counts = gateway.queue.counts().await.unwrap().swap_remove(0);
        (refused == narrow.refused() && counts.running == 1).then_some(counts)
    })
    .await;
    assert_eq!((counts.function.name(), counts.queued + counts.waiting), ("f", 63));
    assert!(counts.queued > 20, "{counts:?}: it was asked for more than half of them");
}
