use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{connection::Connection, statistics::percentile};

/// How long any one call under load may take.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What to call, and what the right answer is: its status, and how long it is.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) request: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) answer_length: usize,
}

/// What one round of load saw.
pub(crate) struct Round {
    /// All that were made, also those that are not counted otherwise.
    pub(crate) calls: usize,
    pub(crate) calls_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Round {
    pub(crate) fn of(Seen { mut latencies, calls }: Seen, time: Duration) -> Result<Self> {
        latencies.sort_unstable();
        Ok(Self {
            calls,
            calls_per_second: latencies.len() as f64 / time.as_secs_f64(),
            p50: percentile(&latencies, 50)?,
            p99: percentile(&latencies, 99)?,
        })
    }
}

/// What connections, or other clients, saw.
#[derive(Default)]
pub(crate) struct Seen {
    calls: usize,
    /// Of calls that were answered after `begin`.
    latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn answer(&mut self, latency: Duration, now: Instant, begin: Instant) {
        self.calls += 1;
        if now >= begin {
            self.latencies.push(latency);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.latencies.extend(other.latencies);
    }
}

/// Calls in a closed loop: each connection sends its next request when it has the last one's answer. One thread a core
/// shares the connections out. The first fifth of the time is not counted; the calls under way at the end are.
pub(crate) fn closed(target: &Target, connections: usize, time: Duration) -> Result<Round> {
    let threads = thread::available_parallelism()?.get().min(connections);
    let begin = Instant::now() + time / 5;
    let share = |thread| connections / threads + usize::from(thread < connections % threads);
    Round::of(on_threads(threads, |thread| drive(target, share(thread), (begin, begin + time)))?, time)
}

/// Calls at a steady, low rate: each connection sends a request every `pause`, or at once if the last one took longer.
/// One thread a connection, since a thread that waits costs nothing.
pub(crate) fn paced(target: &Target, connections: u32, pause: Duration, time: Duration) -> Result<Round> {
    let begin = Instant::now() + time / 5;
    let seen = on_threads(connections as usize, |thread| {
        let first = Instant::now() + pause * u32::try_from(thread)? / connections;
        keep_pace(target, first, pause, (begin, begin + time))
    })?;
    Round::of(seen, time)
}

fn on_threads(count: usize, run: impl Fn(usize) -> Result<Seen> + Sync) -> Result<Seen> {
    thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..count).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut all = Seen::default();
        for thread in running {
            all.add(thread.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        Ok(all)
    })
}

/// A connection, and when its request was sent.
struct Line {
    connection: Connection,
    sent: Instant,
}

impl Line {
    fn open(target: &Target) -> Result<Self> {
        Ok(Self { connection: Connection::open(target.address)?, sent: Instant::now() })
    }

    fn send(&mut self, target: &Target, now: Instant) -> Result<()> {
        self.sent = now;
        self.connection.send(&target.request)
    }

    /// How long the answer took, once it is whole, and when that was.
    fn receive(&mut self, target: &Target) -> Result<Option<(Duration, Instant)>> {
        let Some(answer) = self.connection.receive()? else { return Ok(None) };
        if answer.status != target.status || answer.length != target.answer_length {
            let body = self.connection.body(&answer)?;
            bail!(
                "status {} and {body:?} where {} and {} bytes were due",
                answer.status,
                target.status,
                target.answer_length
            );
        }
        let now = Instant::now();
        Ok(Some((now - self.sent, now)))
    }
}

fn drive(target: &Target, connections: usize, (begin, end): (Instant, Instant)) -> Result<Seen> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut lines = Vec::new();
    for number in 0..connections {
        let mut line = Line::open(target)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &line.connection.stream, data, epoll::EventFlags::IN)?;
        line.send(target, Instant::now())?;
        lines.push(line);
    }
    let (mut seen, mut events) = (Seen::default(), Vec::with_capacity(connections));
    let mut under_way = connections;
    while under_way > 0 {
        events.clear();
        if epoll::wait(&epoll, spare_capacity(&mut events), Some(&PATIENCE))? == 0 {
            bail!("a call hangs");
        }
        for event in &events {
            let line = lines.get_mut(usize::try_from(event.data.u64())?).context("an unknown connection")?;
            let Some((latency, now)) = line.receive(target)? else { continue };
            seen.answer(latency, now, begin);
            if now < end {
                line.send(target, now)?;
            } else {
                under_way -= 1;
            }
        }
    }
    Ok(seen)
}

fn keep_pace(
    target: &Target,
    first: Instant,
    pause: Duration,
    (begin, end): (Instant, Instant),
) -> Result<Seen> {
    let mut line = Line::open(target)?;
    let (mut seen, mut due) = (Seen::default(), first);
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        line.send(target, Instant::now())?;
        let (latency, now) = loop {
            if let Some(received) = line.receive(target)? {
                break received;
            }
        };
        seen.answer(latency, now, begin);
        if now >= end {
            return Ok(seen);
        }
        due = now.max(due + pause);
    }
}
