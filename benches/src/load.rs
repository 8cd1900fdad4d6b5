use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{runtime::Builder, task::JoinSet};

use crate::connection::Connection;

/// What to call, and how long the right answer is.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) request: Vec<u8>,
    pub(crate) answer_length: usize,
}

/// What one round of load saw.
pub(crate) struct Round {
    pub(crate) calls_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Calls in a closed loop: each connection sends its next request when it has the last one's answer. One thread a core
/// shares the connections out. The first fifth of the time is not counted; the calls under way at the end are.
pub(crate) fn run(target: &Target, connections: usize, time: Duration) -> Result<Round> {
    let threads = thread::available_parallelism()?.get().min(connections);
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let mut latencies = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let share = connections / threads + usize::from(thread < connections % threads);
                scope.spawn(move || run_thread(target, share, begin, end))
            })
            .collect();
        for thread in running {
            latencies.extend(thread.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        anyhow::Ok(())
    })?;
    latencies.sort_unstable();
    Ok(Round {
        calls_per_second: latencies.len() as f64 / time.as_secs_f64(),
        p50: percentile(&latencies, 50)?,
        p99: percentile(&latencies, 99)?,
    })
}

fn run_thread(target: &Target, connections: usize, begin: Instant, end: Instant) -> Result<Vec<Duration>> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(run_connection(target.clone(), begin, end));
        }
        let patience = end.saturating_duration_since(Instant::now()) + Duration::from_secs(10);
        let all = tokio::time::timeout(patience, tasks.join_all()).await.context("a call hangs")?;
        Ok(all.into_iter().collect::<Result<Vec<_>>>()?.concat())
    })
}

async fn run_connection(target: Target, begin: Instant, end: Instant) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(target.address).await?;
    let mut latencies = Vec::new();
    loop {
        let sent = Instant::now();
        connection.expect(&target.request, target.answer_length).await?;
        let answered = Instant::now();
        if answered >= begin {
            latencies.push(answered - sent);
        }
        if answered >= end {
            return Ok(latencies);
        }
    }
}

/// A percentile of what is sorted.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Result<Duration> {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().context("nothing was measured")
}
