//! Durable pushes beside the least that they can cost.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use gateway_queue::{Content, Embedded, NewCall, Queue, Settings};
use http::{HeaderMap, HeaderValue, Method, header};
use runtime_api::{CallId, FunctionName};
use tokio::{runtime::Runtime, task::JoinSet};

use super::{BODY_BYTES, folder, raw_log::RawLog};
use crate::{
    load::{Round, Seen},
    report::{Table, spread, time},
    statistics::Figure,
};

const CLIENTS: [usize; 3] = [1, 64, 256];

/// What so many clients at once saw.
pub(super) struct Pushes {
    pub(super) clients: usize,
    queue: Rates,
    log: Rates,
    /// Of one round each, that followed each other.
    pub(super) ratio: Figure,
}

/// Calls a second, and microseconds.
struct Rates {
    rate: Figure,
    p50: Figure,
    p99: Figure,
}

impl Rates {
    fn of(rounds: &[Round]) -> Result<Self> {
        Ok(Self {
            rate: Figure::of(rounds.iter().map(|round| round.calls_per_second))?,
            p50: Figure::of_times(rounds.iter().map(|round| round.p50), 1e6)?,
            p99: Figure::of_times(rounds.iter().map(|round| round.p99), 1e6)?,
        })
    }
}

/// Rounds of log and queue in turn, each on files of its own.
pub(super) fn measure(directory: &Path, rounds: usize, time: Duration) -> Result<Vec<Pushes>> {
    let runtime = Runtime::new()?;
    let mut seen = CLIENTS.map(|clients| (clients, Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for (clients, log, queue) in &mut seen {
            log.push(to_log(&runtime, directory, *clients, time)?);
            queue.push(to_queue(&runtime, directory, *clients, time)?);
        }
    }
    let pushes = seen.iter().map(|(clients, log, queue)| {
        let pairs = queue.iter().zip(log);
        let ratio = pairs.map(|(queue, log)| queue.calls_per_second / log.calls_per_second);
        let ratio = Figure::of(ratio)?;
        Ok(Pushes { clients: *clients, queue: Rates::of(queue)?, log: Rates::of(log)?, ratio })
    });
    pushes.collect()
}

fn to_log(runtime: &Runtime, directory: &Path, clients: usize, time: Duration) -> Result<Round> {
    let folder = folder(directory)?;
    let log = RawLog::start(&folder.path().join("log"))?;
    let (client, body) = (log.client(), body());
    let append = move || {
        let (client, body) = (client.clone(), body.clone());
        async move { client.append(body).await }
    };
    let round = runtime.block_on(closed(clients, time, append))?;
    log.end()?;
    Ok(round)
}

fn to_queue(runtime: &Runtime, directory: &Path, clients: usize, time: Duration) -> Result<Round> {
    let folder = folder(directory)?;
    let queue = open(&folder.path().join("queue"))?;
    let (pushed_to, calls) = (Arc::clone(&queue), Arc::new(Calls::new()));
    let push = move || {
        let (queue, call) = (Arc::clone(&pushed_to), calls.next());
        async move {
            queue.push(call?).await?;
            Ok(())
        }
    };
    let round = runtime.block_on(closed(clients, time, push))?;
    runtime.block_on(queue.close())?;
    Ok(round)
}

/// A queue as `fawn up` opens it.
pub(super) fn open(path: &Path) -> Result<Arc<dyn Queue>> {
    let queue = Embedded::open(path, Settings::default(), Arc::new(SystemTime::now));
    Ok(Arc::new(queue.with_context(|| format!("no queue in {}", path.display()))?))
}

fn body() -> Bytes {
    vec![b'a'; BODY_BYTES].into()
}

/// Calls as `curl` makes them, each with an id of its own as the gateway gives them.
pub(super) struct Calls {
    body: Bytes,
    made: AtomicU64,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { body: body(), made: AtomicU64::new(0) }
    }

    fn next(&self) -> Result<NewCall> {
        call(self.made.fetch_add(1, Ordering::Relaxed), self.body.clone())
    }

    /// The next one, unless so many were made.
    pub(super) fn next_of(&self, count: u64) -> Result<Option<NewCall>> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        (number < count).then(|| call(number, self.body.clone())).transpose()
    }
}

fn call(number: u64, body: Bytes) -> Result<NewCall> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("curl/8.5.0"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(NewCall {
        function: FunctionName::parse("hello")?,
        method: Method::POST,
        path_and_query: "/".into(),
        headers,
        call_id: CallId::new(format!("00000000-0000-4000-8000-{number:012x}")),
        callback_url: None,
        not_before: None,
        idempotency_key: None,
        body: Content::Bytes(body),
    })
}

/// Each client begins its next when its last is done. The first fifth of the time is not counted.
async fn closed<F, Done>(clients: usize, time: Duration, act: F) -> Result<Round>
where
    F: Fn() -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<()>> + Send,
{
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let act = act.clone();
        running.spawn(async move {
            let (mut seen, mut now) = (Seen::default(), Instant::now());
            while now < end {
                let sent = now;
                act().await?;
                now = Instant::now();
                seen.answer(now - sent, now, begin);
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        all.add(seen??);
    }
    Round::of(all, time)
}

pub(super) fn table(pushes: &[Pushes]) -> Table {
    let mut table = Table::new(
        "Durable pushes of 1 KiB, beside a log that one thread appends to and syncs",
        ["clients", "calls/s", "p50", "p99", "log: appends/s", "log: p50", "log: p99", "of the log's"],
    );
    for Pushes { clients, queue, log, ratio } in pushes {
        table.row([
            clients.to_string(),
            spread(queue.rate, 0),
            time(queue.p50),
            time(queue.p99),
            spread(log.rate, 0),
            time(log.p50),
            time(log.p99),
            spread(*ratio, 3),
        ]);
    }
    table
}
