//! A large backlog: pushed, found again after a stop and after a kill, and drained. Each step has a process of its own, so
//! that its memory is what that step needs.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use gateway_queue::{Outcome, Queue, Room, Then};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    folder, once,
    pushes::{Calls, open},
};
use crate::{
    goals::{Bound, Goal},
    process,
    report::Table,
};

/// As many as fill the committer's batches.
const PUSHERS: usize = 256;
const WORKERS: usize = 64;

/// What the backlog may add to the memory of an empty queue.
const GROWTH_MIB: f64 = 64.0;
/// How long a start may take, whatever waits.
const START_SECONDS: f64 = 3.0;

/// One step.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Part {
    /// Pushes the calls, and closes.
    Fill,
    /// Opens the queue and takes a call, to be killed then.
    Hold,
    /// Opens the queue, and runs everything.
    Drain,
}

/// What a step tells of itself.
#[derive(Deserialize, Serialize)]
struct Told {
    opened_in: Duration,
    resident_opened: u64,
    worked_for: Duration,
    resident_after: u64,
}

/// What all of it came to.
pub(super) struct Backlog {
    calls: u64,
    file_bytes: u64,
    filled: Told,
    after_stop: Told,
    drained: Told,
}

pub(super) fn measure(directory: &Path, calls: u64) -> Result<Backlog> {
    let folder = folder(directory)?;
    let path = folder.path().join("queue");
    let (mut child, filled) = start(Part::Fill, &path, calls)?;
    ensure!(child.wait()?.success(), "the queue could not be filled");
    let file_bytes = path.join("queue.redb").metadata()?.len();

    let_go_of_pages(&path)?;
    let (mut child, after_stop) = start(Part::Hold, &path, 1)?;
    child.kill()?;
    child.wait()?;

    let_go_of_pages(&path)?;
    let (mut child, drained) = start(Part::Drain, &path, calls)?;
    ensure!(child.wait()?.success(), "the queue could not be drained");
    Ok(Backlog { calls, file_bytes, filled, after_stop, drained })
}

/// Has the next one read from the disk, as after a restart of the machine.
fn let_go_of_pages(path: &Path) -> Result<()> {
    let file = File::open(path.join("queue.redb"))?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Starts a step, and reads what it tells when it has worked.
fn start(part: Part, path: &Path, calls: u64) -> Result<(Child, Told)> {
    let name = part.to_possible_value().context("a step without a name")?;
    let mut child = Command::new(env::current_exe()?)
        .args(["backlog", name.get_name()])
        .arg(path)
        .arg(calls.to_string())
        // Its end is the end of a step that would wait for ever, should this process end first.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let told = serde_json::from_str(&line);
    if told.is_err() {
        child.wait()?;
    }
    Ok((child, told.with_context(|| format!("{} failed", name.get_name()))?))
}

/// Does one step in this process, and tells of it.
pub(crate) fn run(part: Part, path: &Path, calls: u64) -> Result<()> {
    let runtime = Runtime::new()?;
    let began = Instant::now();
    let queue = open(path)?;
    let opened_in = began.elapsed();
    let resident = || Ok::<_, anyhow::Error>(process::memory(std::process::id())?.resident);
    let resident_opened = resident()?;
    let began = Instant::now();
    let held = match part {
        Part::Fill => runtime.block_on(fill(&queue, calls))?,
        Part::Hold => runtime.block_on(queue.next(1, everything()))?,
        Part::Drain => runtime.block_on(drain(&queue, calls))?,
    };
    let worked_for = began.elapsed();
    let told = Told { opened_in, resident_opened, worked_for, resident_after: resident()? };
    writeln!(stdout(), "{}", serde_json::to_string(&told)?)?;
    if !held.is_empty() {
        // Until it is killed.
        stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(runtime.block_on(queue.close())?)
}

async fn fill(queue: &Arc<dyn Queue>, count: u64) -> Result<Vec<gateway_queue::Delivery>> {
    let calls = Arc::new(Calls::new());
    let mut pushers = JoinSet::new();
    for _ in 0..PUSHERS {
        let (queue, calls) = (Arc::clone(queue), Arc::clone(&calls));
        pushers.spawn(async move {
            while let Some(call) = calls.next_of(count)? {
                queue.push(call).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(pushed) = pushers.join_next().await {
        pushed??;
    }
    Ok(Vec::new())
}

fn everything() -> Room {
    Arc::new(|_| WORKERS)
}

async fn drain(queue: &Arc<dyn Queue>, count: u64) -> Result<Vec<gateway_queue::Delivery>> {
    let (wanted, mut workers) = (Arc::new(AtomicU64::new(count)), JoinSet::new());
    for _ in 0..WORKERS {
        let (queue, wanted) = (Arc::clone(queue), Arc::clone(&wanted));
        workers.spawn(async move {
            let one = |left: u64| left.checked_sub(1);
            while wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok() {
                for delivery in queue.next(1, everything()).await? {
                    let (duration, error) = (Duration::from_millis(1), String::new());
                    let outcome = Outcome { status: Some(200), duration, error, then: Then::Succeeded };
                    delivery.settle(outcome).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(worked) = workers.join_next().await {
        worked??;
    }
    let counts = queue.counts().await?;
    if counts.iter().any(|counts| counts.queued + counts.running + counts.waiting + counts.dead > 0) {
        bail!("what should have run is left: {counts:?}");
    }
    Ok(Vec::new())
}

impl Backlog {
    /// In MiB.
    fn growth(&self) -> f64 {
        mib(self.filled.resident_after) - mib(self.filled.resident_opened)
    }

    pub(super) fn goals(&self) -> Result<Vec<Goal>> {
        let start = Bound::AtMost(START_SECONDS);
        let seconds = |told: &Told| once(told.opened_in.as_secs_f64());
        Ok(vec![
            Goal::new("backlog: opened after a stop", start, " s", 3, seconds(&self.after_stop)),
            Goal::new("backlog: opened after a kill", start, " s", 3, seconds(&self.drained)),
            Goal::new(
                "backlog: memory over an empty queue's",
                Bound::AtMost(GROWTH_MIB),
                " MiB",
                1,
                once(self.growth()),
            ),
        ])
    }

    pub(super) fn table(&self) -> Table {
        let title = format!(
            "A backlog of {} calls of 1 KiB, in a file of {:.0} MiB, from a disk that has to be read",
            self.calls,
            mib(self.file_bytes)
        );
        let mut table = Table::new(&title, ["step", "opened in", "memory then", "calls/s", "memory after"]);
        let mut row = |step: &str, told: &Told, calls: Option<u64>| {
            let rate = calls.map(|calls| calls as f64 / told.worked_for.as_secs_f64());
            table.row([
                step.into(),
                format!("{:.3} s", told.opened_in.as_secs_f64()),
                format!("{:.1} MiB", mib(told.resident_opened)),
                rate.map_or("–".into(), |rate| format!("{rate:.0}")),
                format!("{:.1} MiB", mib(told.resident_after)),
            ]);
        };
        row("pushed by 256 clients", &self.filled, Some(self.calls));
        row("opened after a stop", &self.after_stop, None);
        row("opened after a kill, drained by 64 workers", &self.drained, Some(self.calls));
        table
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
