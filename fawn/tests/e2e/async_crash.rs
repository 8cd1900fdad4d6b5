//! What was accepted runs, however often its server is killed.

use std::{
    env,
    time::{Duration, Instant},
};

use reqwest::Method;
use tokio::time::{Instant as Moment, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{Caller, FUNCTIONS, call_until, callers, check},
    edge::{Edge, Plan, Reply},
    later::{accepted, call, drained, number, passing, reaching_here, serve_passing, total},
    ledger::{Ledger, body},
    process::eventually,
};

/// Some kills come while the server starts.
const LONGEST_LIFE_MS: u64 = 500;
const LONGEST_START_MS: u64 = 80;
/// More than any call can be unlucky: here the killing is to blame, not the call.
const RETRIES: u32 = 10_000;

fn from_environment(name: &str, usual: usize) -> usize {
    env::var(name).map_or(usual, |number| number.parse().expect("a number"))
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

fn by_chance(longest_ms: u64) -> Moment {
    Moment::now() + Duration::from_millis(rand::random_range(0..longest_ms))
}

/// Lets all clients call until that moment, kills the server and waits for its end.
async fn killed_under_load(edge: &mut Edge, callers: Vec<Caller>, moment: Moment) -> Vec<Caller> {
    let over = CancellationToken::new();
    let calling = call_until(callers, edge, &over);
    sleep_until(moment).await;
    kill(edge.process.pid);
    over.cancel();
    let callers = calling.join_all().await;
    assert!(!edge.process.ended().await.success());
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn accepted_calls_run_though_their_server_is_killed_at_any_moment() {
    let kills = from_environment("FAWN_QUEUE_KILLS", 100);
    let calls = from_environment("FAWN_QUEUE_CALLS", 2000);
    let began = Instant::now();
    let ledger = Ledger::start().await;
    let mut edge = reaching_here(Plan::new()).start().await;
    for name in FUNCTIONS {
        serve_passing(&edge, name, RETRIES).await;
    }
    let mut callers = callers(&ledger);
    let (mut killed, mut starts) = (0, Vec::new());
    let made = |callers: &[Caller]| callers.iter().map(|caller| caller.calls.len()).sum::<usize>();
    while killed < kills || made(&callers) < calls {
        callers = killed_under_load(&mut edge, callers, by_chance(LONGEST_LIFE_MS)).await;
        ledger.next_life().await;
        killed += 1;
        if killed % 4 == 0 {
            reaching_here(edge.again()).killed_at(by_chance(LONGEST_START_MS)).await;
            ledger.next_life().await;
            killed += 1;
        }
        let start = Instant::now();
        edge = reaching_here(edge.again()).start().await;
        starts.push(start.elapsed());
    }
    for caller in &mut callers {
        caller.insist(&edge).await;
    }
    let counts = drained(&edge).await;
    assert_eq!(total(&counts, &["dead", "cancelled"]), 0, "{counts}");

    let (mut done, mut accepted, mut unknown, mut again) = (0, 0, 0, 0);
    for caller in &callers {
        let (mut kept, mut ran) = (0, 0);
        for (id, call) in &caller.calls {
            let seen = ledger.seen(id);
            check(id, *call, &seen);
            kept += u64::from(call.accepted);
            ran += u64::from(seen.successes() > 0);
            again += seen.successes().saturating_sub(1);
        }
        accepted += kept;
        unknown += caller.calls.len() as u64 - kept;
        done += ran;
        assert!(!caller.insists || kept == caller.calls.len() as u64, "who insists is answered in the end");
    }
    starts.sort_unstable();
    eprintln!(
        "{killed} kills in {:?}: {accepted} calls accepted, {unknown} unknown, of which {} ran; ran again {again} times; \
         from start to ready {:?}, at most {:?}",
        began.elapsed(),
        done - accepted,
        starts[starts.len() / 2],
        starts[starts.len() - 1],
    );
    assert_eq!(total(&counts, &["succeeded"]), done, "each id is one call: {counts}");
    let insisting: u64 =
        callers.iter().filter(|caller| caller.insists).map(|caller| caller.calls.len() as u64).sum();
    assert_eq!(number(&counts, "insisting", "succeeded"), insisting, "{counts}");
    assert!(accepted > 10 * kills as u64, "too few to prove anything");
    let bodies = std::fs::read_dir(edge.data_dir().join("queue")).unwrap();
    let bodies: Vec<_> = bodies.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!bodies.iter().any(|name| name.ends_with(".body")), "{bodies:?}");
}

/// Calls whose bodies the queue's file has within it, so that it is worth making smaller when they have run.
const LARGE_BYTES: usize = 48 << 10;
const LARGE: usize = 1500;
/// Letters that are to survive it.
const LETTERS: usize = 50;
/// A little less than the queue waits with nothing to do.
const IDLE: Duration = Duration::from_millis(9960);
/// A smaller file is left as it is.
const WORTH_BYTES: u64 = 32 << 20;
/// What nothing but ended calls takes at most.
const SMALL_BYTES: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the guests: run scripts/test"]
async fn a_server_that_is_killed_while_it_compacts_loses_nothing() {
    let life = |begun, after_ms| killed_around_compaction(begun, Duration::from_millis(after_ms));
    // Side by side, since most of it is waiting.
    let (one, two, three, four, five, six) = tokio::join!(
        life(false, 0),
        life(false, 30),
        life(false, 60),
        life(true, 0),
        life(true, 2),
        life(true, 5),
    );
    let cut = [one, two, three, four, five, six];
    eprintln!("the files had, before and at the kill: {cut:?}");
    let midway = |[before, killed]: &[u64; 2]| killed < before && *killed > SMALL_BYTES;
    assert!(cut.iter().any(midway), "none was killed midway");
}

/// Kills a server so long after it may begin to compact, or has `begun`, and gives the sizes of its file before and at its
/// death.
async fn killed_around_compaction(begun: bool, after: Duration) -> [u64; 2] {
    let ledger = Ledger::start().await;
    let mut edge = reaching_here(Plan::new()).start().await;
    serve_passing(&edge, "large", 0).await;
    let file = edge.data_dir().join("queue/queue.redb");
    let length = || file.metadata().unwrap().len();

    ledger.refuse(true);
    for letter in 0..LETTERS {
        accepted(&Reply::to(call(&edge, &ledger, "large", &format!("letter-{letter}"))).await);
    }
    assert_eq!(total(&drained(&edge).await, &["dead"]), LETTERS as u64);
    ledger.refuse(false);
    ledger.hold();
    for number in 0..LARGE {
        let id = format!("large-{number}");
        let path = passing("large", &ledger.held(&id));
        accepted(&Reply::to(edge.request(Method::POST, &path).body(body(&id, LARGE_BYTES))).await);
    }
    ledger.let_go();
    drained(&edge).await;
    let (idle, before) = (Moment::now() + IDLE, length());

    let mut turns = interval(Duration::from_millis(1));
    while begun && length() == before {
        turns.tick().await;
    }
    sleep_until(if begun { Moment::now() } else { idle } + after).await;
    edge.kill().await;
    let killed = length();
    edge = reaching_here(edge.again()).start().await;
    eventually("the file is compacted", async || (length() < WORTH_BYTES).then_some(())).await;
    let counts = drained(&edge).await;
    assert_eq!(total(&counts, &["dead"]), LETTERS as u64, "{counts}");
    assert_eq!(total(&counts, &["succeeded"]), LARGE as u64, "{counts}");
    let replay = Reply::to(edge.admin(Method::POST, "/system/async/dead/large/replay")).await;
    assert_eq!(replay.json()["calls"], LETTERS);
    let counts = drained(&edge).await;
    assert_eq!(total(&counts, &["succeeded"]), (LARGE + LETTERS) as u64, "{counts}");
    for letter in 0..LETTERS {
        assert_eq!(ledger.seen(&format!("letter-{letter}")).successes(), 1);
    }
    [before, killed]
}
