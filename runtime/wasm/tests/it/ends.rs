//! However a call ends, and in whatever phase, what it held is given back.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use runtime_api::{Body, BodyError, Error, empty, full};
use runtime_testing::guests::{
    ECHO, ECHO_HTTP, FILL, HELLO, HELLO_HTTP, HTTP_ENDLESS, HTTP_LATE_LOOP, HTTP_LATE_TRAP, HTTP_LOOP,
    HTTP_TAIL_LOOP, HTTP_TAIL_TRAP, HTTP_VAULT, LOOP, SLEEP,
};
use runtime_wasm::InstancePool;

use crate::bench::{Bench, call, hurried, invocation, text, unfinished, until};

/// Guests that answer nothing before something that does not come, with the status that tells that they were late.
const UNANSWERED: [(&str, &str, u16); 6] = [
    ("a command computes", LOOP, 408),
    ("a command fills memory", FILL, 408),
    ("a command waits for the clock", SLEEP, 408),
    ("a command waits for the rest of its body", ECHO, 408),
    ("a component computes", HTTP_LOOP, 504),
    ("a component waits for its body", HTTP_VAULT, 504),
];

/// Guests that have begun their answers.
const BEGUN: [(&str, &str); 3] = [
    ("a component waits for the rest of its body", ECHO_HTTP),
    ("a component computes on", HTTP_LATE_LOOP),
    ("a component writes on", HTTP_ENDLESS),
];

fn body_for(guest: &str) -> Body {
    // The component reads an order of 24 bytes at once, so that it waits for the first one.
    if guest == HTTP_VAULT { unfinished("") } else { unfinished("begin") }
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_its_answer_gives_everything_back() {
    let bench = Bench::with_slots(2);
    for (phase, guest, _) in UNANSWERED {
        let pool = bench.pool(guest).await;
        let under_way = tokio::spawn({
            let pool = pool.clone();
            async move { pool.invoke(invocation(body_for(guest)), u64::MAX).await }
        });
        bench.running(phase).await;
        assert_eq!((bench.engine.slots_in_use(), pool.inflight()), (1, 1), "{phase}");
        under_way.abort();
        assert!(under_way.await.unwrap_err().is_cancelled(), "{phase}");
        bench.at_rest(phase, &[&pool]).await;
    }
}

#[tokio::test]
async fn a_call_that_is_late_before_its_answer_gives_everything_back() {
    let bench = Bench::with_slots(2);
    for (phase, guest, status) in UNANSWERED {
        let pool = bench.pool(guest).await;
        let late = pool.invoke(hurried(body_for(guest), "30ms"), u64::MAX).await.unwrap();
        assert_eq!(late.status(), status, "{phase}");
        bench.at_rest(phase, &[&pool]).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_let_go_of_gives_everything_back() {
    let bench = Bench::with_slots(2);
    for (phase, guest) in BEGUN {
        let pool = bench.pool(guest).await;
        let answer = pool.invoke(invocation(body_for(guest)), u64::MAX).await.unwrap();
        assert_eq!((bench.engine.slots_in_use(), pool.inflight()), (1, 1), "{phase}");
        let mut body = answer.into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data(), "{phase}");
        drop(body);
        bench.at_rest(phase, &[&pool]).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_late_breaks_off_and_gives_everything_back() {
    let bench = Bench::with_slots(2);
    for (phase, guest) in BEGUN {
        let pool = bench.pool(guest).await;
        let unread = pool.invoke(hurried(body_for(guest), "30ms"), u64::MAX).await.unwrap();
        bench.at_rest(phase, &[&pool]).await;
        assert!(unread.into_body().collect().await.is_err(), "{phase}, unread: not a clean end");

        let read = pool.invoke(hurried(body_for(guest), "30ms"), u64::MAX).await.unwrap();
        assert!(read.into_body().collect().await.is_err(), "{phase}, read: not a clean end");
        bench.at_rest(phase, &[&pool]).await;
    }
}

#[tokio::test]
async fn a_guest_that_goes_on_after_its_answer_ends_at_its_deadline() {
    let bench = Bench::with_slots(2);
    let pool = bench.pool(HTTP_TAIL_LOOP).await;
    let answer = pool.invoke(hurried(empty(), "100ms"), u64::MAX).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await, "piece\n", "the answer is whole");
    bench.at_rest("the tail", &[&pool]).await;

    let unread = pool.invoke(hurried(empty(), "100ms"), u64::MAX).await.unwrap();
    drop(unread);
    bench.at_rest("the tail of an answer that nobody read", &[&pool]).await;
}

#[tokio::test]
async fn a_trap_after_the_head_is_told_and_gives_everything_back() {
    let bench = Bench::with_slots(2);
    let pool = bench.pool(HTTP_LATE_TRAP).await;
    match call(&pool, "").await {
        Err(Error::FunctionFailed { code, .. }) => assert_eq!(code, "guest-trap"),
        Err(error) => panic!("{error:?}"),
        Ok(answer) => assert!(answer.into_body().collect().await.is_err(), "not a clean end"),
    }
    bench.at_rest("half an answer", &[&pool]).await;

    let pool = bench.pool(HTTP_TAIL_TRAP).await;
    if let Ok(answer) = call(&pool, "").await {
        let body = answer.into_body().collect().await;
        assert!(body.is_err() || body.unwrap().to_bytes() == "piece\n", "nothing but its own answer");
    }
    bench.at_rest("a whole answer", &[&pool]).await;
}

#[tokio::test]
async fn calls_that_wait_for_a_slot_leave_no_trace_when_they_are_cancelled() {
    let bench = Bench::with_slots(1);
    let (busy, pool) = (bench.pool(HTTP_ENDLESS).await, bench.pool(HELLO_HTTP).await);
    let held = call(&busy, "").await.unwrap();
    // More than may wait at once, so that one that is still counted is noticed.
    for _ in 0..6 {
        let waiting: Vec<_> = (0..1000)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { call(&pool, "").await })
            })
            .collect();
        until(|| pool.inflight() == 1000).await;
        for call in &waiting {
            call.abort();
        }
        for call in waiting {
            assert!(call.await.unwrap_err().is_cancelled());
        }
        assert_eq!((pool.inflight(), bench.engine.slots_in_use()), (0, 1));
    }
    let late = pool.invoke(hurried(empty(), "20ms"), u64::MAX).await.unwrap_err();
    assert!(late.to_string().contains("time allowed"), "it waited: {late}");

    let next = tokio::spawn({
        let pool = pool.clone();
        async move { call(&pool, "").await }
    });
    until(|| pool.inflight() == 1).await;
    drop(held);
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    bench.at_rest("nobody waits", &[&busy, &pool]).await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_as_it_gets_its_slot_does_not_keep_it() {
    let bench = Bench::with_slots(1);
    let (busy, pool) = (bench.pool(HTTP_ENDLESS).await, bench.pool(HELLO).await);
    for _ in 0..100 {
        let held = call(&busy, "").await.unwrap();
        let next = tokio::spawn({
            let pool = pool.clone();
            async move { call(&pool, "").await }
        });
        until(|| pool.inflight() == 1).await;
        // The slot is given to the one that waits, which is cancelled before it is polled again.
        drop(held);
        next.abort();
        assert!(next.await.unwrap_err().is_cancelled());
        assert_eq!(call(&pool, "").await.unwrap().status(), 200);
    }
    bench.at_rest("the slot is free", &[&busy, &pool]).await;
}

/// A body whose reader runs into a defect of the host.
struct Defect;

impl http_body::Body for Defect {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        panic!("on purpose")
    }
}

/// A function of the host panics, before the head of the answer or after it.
async fn panics(pool: &Arc<InstancePool>) {
    let error = match pool.invoke(invocation(Defect.boxed_unsync()), u64::MAX).await {
        Ok(answer) => *answer.into_body().collect().await.unwrap_err().downcast::<Error>().unwrap(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Internal(_)), "{error:?}");
}

#[tokio::test]
async fn a_panic_of_the_host_ends_its_own_call_alone() {
    let bench = Bench::with_slots(2);
    for guest in [ECHO, ECHO_HTTP, HTTP_VAULT] {
        let pool = bench.pool(guest).await;
        let neighbour = bench.pool(HTTP_ENDLESS).await;
        let mut streaming = call(&neighbour, "").await.unwrap().into_body();
        for _ in 0..10 {
            panics(&pool).await;
        }
        assert!(streaming.frame().await.unwrap().unwrap().is_data(), "the neighbour goes on");
        drop(streaming);
        bench.at_rest("after panics", &[&pool, &neighbour]).await;
        if guest != HTTP_VAULT {
            assert_eq!(text(call(&pool, "still there").await.unwrap()).await, "still there");
        }
    }
}

#[tokio::test]
async fn code_that_is_dropped_while_calls_run_is_kept_for_them_and_loaded_again() {
    let bench = Bench::with_slots(2);
    let pool = bench.pool(ECHO_HTTP).await;
    let answer = pool.invoke(invocation(unfinished("first")), u64::MAX).await.unwrap();
    pool.unload();
    assert_eq!(text(call(&pool, "second").await.unwrap()).await, "second");
    pool.unload();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    drop(body);
    bench.at_rest("its code is gone", &[&pool]).await;

    let late = pool.invoke(hurried(full("third"), "20s"), u64::MAX).await.unwrap();
    assert_eq!(text(late).await, "third");
    let cancelled = tokio::time::timeout(Duration::ZERO, async {
        pool.unload();
        call(&pool, "").await
    });
    drop(cancelled.await);
    assert_eq!(text(call(&pool, "fourth").await.unwrap()).await, "fourth");
    bench.at_rest("a load was given up", &[&pool]).await;
}
