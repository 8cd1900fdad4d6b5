//! Calls that are given up at any point of theirs.

use std::{
    pin::pin,
    process::Command,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http_body_util::BodyExt;
use rand::RngExt;
use runtime_api::{Body, full};
use runtime_testing::guests::{
    ECHO, ECHO_HTTP, FLOOD, HTTP_ENDLESS, HTTP_LOOP, HTTP_TAIL_LOOP, HTTP_VAULT, LOOP, SLEEP, SPLICE_HTTP,
};
use runtime_wasm::InstancePool;

use crate::bench::{Bench, bytes, call, in_pieces, invocation, unfinished};

const ALONE: &str = "FAWN_TEST_CANCEL_ALONE";

/// As many calls as are given up.
const CALLS: usize = 1000;

fn body(of: usize) -> Body {
    match of % 3 {
        0 => full("some text"),
        1 => in_pieces(vec!["one ".into(), "two ".into(), "three".into()]),
        _ => unfinished("begin"),
    }
}

/// Polls a call so many times, or lets it run so long, and gives it up, with its answer if it has begun.
async fn give_up(pool: Arc<InstancePool>, nth: usize) {
    let (polls, micros) = {
        let mut chance = rand::rng();
        (chance.random_range(0..12), chance.random_range(0..8000))
    };
    let run = async {
        if let Ok(answer) = pool.invoke(invocation(body(nth)), u64::MAX).await {
            // Whether it is whole does not matter here.
            drop(answer.into_body().collect().await);
        }
    };
    if nth.is_multiple_of(2) {
        let mut run = pin!(run);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            if let Poll::Ready(()) = run.as_mut().poll(&mut context) {
                break;
            }
        }
    } else {
        // That it may end in time is as good.
        drop(tokio::time::timeout(Duration::from_micros(micros), run).await);
    }
}

/// In a process of its own, whose open files nobody else's tests change.
#[test]
fn calls_given_up_at_any_point_leave_nothing() {
    if std::env::var_os(ALONE).is_none() {
        let name = "hostile::cancel::calls_given_up_at_any_point_leave_nothing";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let alone = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let told =
            String::from_utf8_lossy(&alone.stdout).into_owned() + &String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::with_slots(64);
        let mut pools = Vec::new();
        for guest in [
            ECHO,
            ECHO_HTTP,
            SPLICE_HTTP,
            HTTP_VAULT,
            HTTP_ENDLESS,
            HTTP_LOOP,
            HTTP_TAIL_LOOP,
            LOOP,
            SLEEP,
            FLOOD,
        ] {
            pools.push(bench.pool_with(guest, |settings| settings.timeout = Duration::from_secs(2)).await);
        }
        let pools_borrowed: Vec<_> = pools.iter().collect();
        // What is opened once and kept is open after the first round.
        give_all_up(&pools, 100).await;
        bench.at_rest("a first round", &pools_borrowed).await;
        let before = open_files();
        give_all_up(&pools, CALLS).await;
        bench.at_rest("given up", &pools_borrowed).await;
        // A thread that just ended a guest may still hold what it wrote to.
        let closed = crate::bench::until(|| open_files() <= before);
        let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
        assert!(closed.is_ok(), "{} files are open, and {before} were before", open_files());
        assert_eq!(bytes(call(&pools[0], "as before").await.unwrap()).await, "as before");
    });
}

async fn give_all_up(pools: &[Arc<InstancePool>], calls: usize) {
    let calls: Vec<_> =
        (0..calls).map(|nth| tokio::spawn(give_up(pools[nth % pools.len()].clone(), nth))).collect();
    for call in calls {
        call.await.unwrap();
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
