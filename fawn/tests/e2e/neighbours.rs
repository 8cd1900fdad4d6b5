//! Guests that take all they can get do not take it from those beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use reqwest::Method;
use runtime_testing::guests::{FILL, HELLO_HTTP};
use tokio::task::JoinSet;

use crate::{
    edge::{Deployment, Edge, Reply},
    guests::text,
    process::eventually,
};

/// How long the guests fill their memory.
const LASTS: &str = "6s";

/// Whoever watches over a node gives up on it after about as long.
const PROMPT: Duration = Duration::from_secs(1);

/// The worst time that a question took, asked again and again until it is over, and how often it was asked.
async fn worst(over: &AtomicBool, mut ask: impl AsyncFnMut()) -> (Duration, u32) {
    let (mut worst, mut asked) = (Duration::ZERO, 0);
    while !over.load(Relaxed) {
        let began = Instant::now();
        ask().await;
        worst = worst.max(began.elapsed());
        asked += 1;
    }
    (worst, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/test"]
async fn instructions_that_are_not_interrupted_hold_up_nobody_for_long() {
    let edge = Edge::start().await;
    // All of the 128 MiB that a function may have, less a page, in one instruction.
    let fill = FILL.replace("(i32.const 1024)", "(i32.const 2047)").replace("0x4000000", "0x7ff0000");
    assert!(fill.contains("2047") && fill.contains("0x7ff0000"));
    edge.serve(Deployment::of("fill", &edge.upload(text(&fill)).await)).await;
    edge.serve(Deployment::of("beside", &edge.upload(text(HELLO_HTTP)).await)).await;

    let guests = thread::available_parallelism().unwrap().get() + 2;
    let over = Arc::new(AtomicBool::new(false));
    let mut fills = JoinSet::new();
    for _ in 0..guests {
        let (fill, over) =
            (edge.request(Method::POST, "/function/fill").header("x-timeout", LASTS), over.clone());
        fills.spawn(async move {
            let status = Reply::to(fill).await.status;
            over.store(true, Relaxed);
            status
        });
    }
    eventually("all fill their memory", async || {
        (edge.metric("fawn_instances").await == guests as f64).then_some(())
    })
    .await;

    let (beside, health, metrics) = tokio::join!(
        worst(&over, async || assert_eq!(edge.call("beside", "").await.ok(), "Hello from Fawn\n")),
        worst(&over, async || assert_eq!(edge.get("/healthz").await.status, 200)),
        worst(&over, async || assert!(edge.metric("fawn_instances").await > 0.0)),
    );
    eprintln!(
        "{guests} guests fill 128 MiB each; the longest of (calls) beside them: {beside:?}, /healthz: {health:?}, \
         /metrics: {metrics:?}"
    );
    assert!(health.0 < PROMPT && metrics.0 < PROMPT, "health {health:?}, metrics {metrics:?}");
    while let Some(status) = fills.join_next().await {
        assert_eq!(status.unwrap(), 408, "it ended at its deadline");
    }
}
