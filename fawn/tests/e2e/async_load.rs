//! Many asynchronous calls at once: what they take, and what becomes of them when the server stops.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::{
    task::JoinSet,
    time::{Instant as Moment, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{FUNCTIONS, call_until, callers, check},
    edge::{self, Edge, Plan, Reply},
    later::{accepted, counts, drained, number, passing, reaching_here, serve_passing, status, total},
    ledger::{Ledger, body},
    process::{PATIENCE, eventually},
};

/// Calls that wait, and how many clients make them.
const WAITING: usize = 100_000;
const CLIENTS: usize = 32;
/// They cost disk, and no memory but for the pages in use.
const GROWTH_BYTES: u64 = 64 << 20;

/// Makes all calls, and none that is due before the test has ended.
async fn wait_in_line(edge: &Edge) {
    let mut clients: JoinSet<()> = (0..CLIENTS)
        .map(|_| {
            let (http, gateway) = (edge::client().timeout(PATIENCE).build().unwrap(), edge.gateway.clone());
            async move {
                for _ in 0..WAITING / CLIENTS {
                    let call = http.request(Method::POST, format!("{gateway}/async-function/hello"));
                    let call = call.header("x-delay-seconds", "36000").body(vec![b'x'; 1024]);
                    accepted(&Reply::to(call).await);
                }
            }
        })
        .collect();
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by scripts/test"]
async fn a_hundred_thousand_waiting_calls_take_disk_and_no_memory() {
    let edge = Edge::start().await;
    for _ in 0..100 {
        edge.call("hello", "").await.ok();
    }
    edge.process.reset_peak();
    let before = edge.process.memory("VmRSS");
    let began = Instant::now();
    wait_in_line(&edge).await;
    let took = began.elapsed();
    let growth = edge.process.memory("VmHWM").saturating_sub(before);
    assert_eq!(number(&counts(&edge).await, "hello", "waiting"), WAITING as u64);

    let (mut edge, again) = (edge, Instant::now());
    edge.kill().await;
    let edge = edge.again().start().await;
    let again = again.elapsed();
    assert_eq!(number(&counts(&edge).await, "hello", "waiting"), WAITING as u64);
    edge.call("hello", "").await.ok();
    let resident = edge.process.memory("VmHWM");
    eprintln!(
        "{WAITING} calls in {took:?}, {:.0} a second; {} KiB above {} KiB; killed and ready again in {again:?}, with {} KiB",
        WAITING as f64 / took.as_secs_f64(),
        growth / 1024,
        before / 1024,
        resident / 1024,
    );
    assert!(growth < GROWTH_BYTES, "{growth} bytes");
    assert!(resident < before + GROWTH_BYTES, "{resident} bytes after the start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn calls_run_once_across_orderly_restarts() {
    const RESTARTS: u64 = 10;
    let ledger = Ledger::start().await;
    let mut edge = reaching_here(Plan::new()).start().await;
    for name in FUNCTIONS {
        serve_passing(&edge, name, 10).await;
    }
    let mut callers = callers(&ledger);
    let mut stops = Vec::new();
    for _ in 0..RESTARTS {
        let over = CancellationToken::new();
        let calling = call_until(callers, &edge, &over);
        sleep_until(Moment::now() + Duration::from_millis(rand::random_range(100..800))).await;
        let stop = Instant::now();
        let ended = edge.terminate().await;
        stops.push(stop.elapsed());
        assert!(ended.success(), "{ended}: {}", edge.process.log());
        over.cancel();
        callers = calling.join_all().await;
        ledger.next_life().await;
        edge = reaching_here(edge.again()).start().await;
    }
    for caller in &mut callers {
        caller.insist(&edge).await;
    }
    let counts = drained(&edge).await;
    assert_eq!(total(&counts, &["dead", "cancelled"]), 0, "{counts}");
    let (mut accepted, mut unknown) = (0, 0);
    for (id, call) in callers.iter().flat_map(|caller| &caller.calls) {
        let seen = ledger.seen(id);
        check(id, *call, &seen);
        assert!(seen.successes() <= 1, "{id} ran again after an orderly end: {seen:?}");
        assert!(seen.callbacks.len() <= 1, "the answer of {id} was posted again: {seen:?}");
        *(if call.accepted { &mut accepted } else { &mut unknown }) += 1;
    }
    stops.sort_unstable();
    eprintln!("{accepted} calls accepted, {unknown} unknown; {RESTARTS} stops took {stops:?}");
    assert!(accepted > 100 * RESTARTS, "too few to prove anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn a_call_that_outlasts_the_grace_period_runs_again() {
    let ledger = Ledger::start().await;
    let mut edge = reaching_here(Plan::new()).argument("--grace-period=500ms").start().await;
    serve_passing(&edge, "work", 10).await;
    ledger.hold();
    let held = edge.request(Method::POST, &passing("work", &ledger.held("held")));
    let call_id = accepted(&Reply::to(held.body(body("held", 100))).await);
    eventually("it runs", async || (ledger.seen("held").effects.len() == 1).then_some(())).await;
    let ended = edge.terminate().await;
    assert!(ended.success(), "{ended}: {}", edge.process.log());
    ledger.next_life().await;
    ledger.let_go();
    edge = reaching_here(edge.again()).start().await;
    drained(&edge).await;
    assert_eq!(ledger.seen("held").effects.len(), 2);
    let status = status(&edge, &call_id).await;
    assert_eq!(status["state"], "succeeded", "{status}");
    assert_eq!(status["attempts"].as_array().unwrap().len(), 2, "{status}");
}
