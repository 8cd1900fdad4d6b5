use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use runtime_store::CheckStopper;
use tracing::{error, info, warn};

use super::{
    checking,
    engine::{Effects, Engine, Work},
    functions::Functions,
    inbox::Batch,
    lease::HeldLease,
    records::Totals,
    request::{Asked, End, Granted, Request, Taken, Taker},
    reserve::Reserve,
    shared::Shared,
    tables::{STATE, TOTALS, Tables},
};
use crate::{Error, Result};

/// How soon the disk is asked again whether it has room, by requests that must not be refused.
const FULL_AGAIN: Duration = Duration::from_millis(250);
/// A wait for a call that is due later is cut here: the clock may be set meanwhile.
const CLOCK_AGAIN: Duration = Duration::from_secs(30);
/// With nothing to do at all.
const IDLE_AGAIN: Duration = Duration::from_secs(3600);
/// Whoever was answered is likely to ask again at once, and shares the next commit if that waits for a part of the time
/// that a commit takes: with two halves that wait for each other in turn, each would wait for two commits.
const GATHER_PART: u32 = 4;
const GATHER: Duration = Duration::from_millis(2);
/// A smaller file is not worth it.
const COMPACT_BYTES: u64 = 32 << 20;
/// The same where the disk is full.
const COMPACT_FULL_BYTES: u64 = 2 << 20;
/// What a call takes in the file at most, roughly.
const LARGEST_BYTES: u64 = 128 << 10;
/// What an ended call takes, roughly.
const ENDED_BYTES: u64 = 512;
/// What a call may take besides its record, in copied pages.
const CALL_BYTES: u64 = 16 << 10;

/// The one writer: commits whatever has gathered while the last commit ran.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Engine,
    pub(super) reserve: Reserve,
    idle: Duration,
    takers: VecDeque<Taker>,
    /// What could not be done for want of room.
    todo: Todo,
    reopen: bool,
    next_due_ms: Option<u64>,
    next_forgotten_ms: Option<u64>,
    /// Whether nothing has changed since the file was last looked at for compaction.
    tidy: bool,
    /// How many were answered after the last commit, and how long that took.
    answered: usize,
    commit_took: Duration,
}

#[derive(Default)]
struct Todo {
    asked: Vec<Asked>,
    given_back: Vec<u64>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, engine: Engine, reserve: Reserve, idle: Duration) -> Self {
        let (takers, todo) = (VecDeque::new(), Todo::default());
        // The first wait is short, and tells what is due.
        let due = Some(0);
        Self {
            shared,
            engine,
            reserve,
            idle,
            takers,
            todo,
            reopen: false,
            next_due_ms: due,
            next_forgotten_ms: due,
            tidy: false,
            answered: 0,
            commit_took: Duration::ZERO,
        }
    }

    /// Until somebody closes the queue, or it fails.
    pub(super) fn run(mut self) {
        let end = EndOfThread(Arc::clone(&self.shared));
        loop {
            self.gather();
            let mut batch = self.shared.inbox.wait(self.patience());
            let closing = std::mem::take(&mut batch.closing);
            if let Err(failure) = self.turn(batch) {
                error!(error = %failure, "the queue takes no more calls");
                self.keep_files();
                return;
            }
            if !closing.is_empty() {
                let closed = self.shared.database.close().map_err(|error| self.shared.judge(error));
                drop(end);
                for reply in closing {
                    let _ = reply.send(if closed.is_ok() { Ok(()) } else { Err(self.shared.gone()) });
                }
                return;
            }
        }
    }

    /// Lets those come back who were just answered.
    fn gather(&mut self) {
        let answered = std::mem::take(&mut self.answered);
        if answered > 0 && self.todo.is_empty() {
            self.shared.inbox.gather(answered, (self.commit_took / GATHER_PART).min(GATHER));
        }
    }

    fn patience(&self) -> Duration {
        if !self.todo.is_empty() || self.reopen {
            return FULL_AGAIN;
        }
        let now_ms = self.shared.now_ms();
        let until = |time_ms: u64| Duration::from_millis(time_ms.saturating_sub(now_ms));
        let mut patience = if self.tidy { IDLE_AGAIN } else { self.idle };
        if let Some(due) = self.next_due_ms.filter(|_| !self.takers.is_empty()) {
            patience = patience.min(until(due)).min(CLOCK_AGAIN);
        }
        self.next_forgotten_ms.map_or(patience, |time| patience.min(until(time)))
    }

    fn turn(&mut self, batch: Batch) -> Result<()> {
        let idle = batch.is_empty() && self.todo.is_empty();
        self.shared.database.check_running().map_err(|error| self.shared.judge(error))?;
        self.takers.extend(batch.takers);
        self.takers.retain(|taker| !taker.reply.is_closed());
        self.todo.asked.extend(batch.asked);
        self.todo.given_back.extend(batch.given_back);
        if self.reopen && !self.open_again()? {
            self.refuse_pushes();
            return Ok(());
        }
        self.refuse_what_does_not_fit();
        if !self.todo.is_empty() || self.is_due() {
            self.tidy = false;
            return self.carry_out();
        }
        // On a full disk new calls wait for the room, and those who ask for it again and again leave no idle time.
        if (idle || !self.reserve.is_held()) && !self.tidy { self.compact() } else { Ok(()) }
    }

    /// Whether there is something to do that nobody asks for now.
    fn is_due(&self) -> bool {
        let now_ms = self.shared.now_ms();
        let passed = |time: Option<u64>| time.is_some_and(|time| time <= now_ms);
        if passed(self.next_forgotten_ms) {
            return true;
        }
        let functions = &self.engine.functions;
        let mut due = functions.in_turn().into_iter().filter_map(|number| functions.name(number));
        let wanted = due.any(|function| self.takers.iter().any(|taker| (taker.room)(function) > 0));
        wanted || (passed(self.next_due_ms) && !self.takers.is_empty())
    }

    fn carry_out(&mut self) -> Result<()> {
        let mut effects = Effects::default();
        let mut served = Vec::new();
        let began = Instant::now();
        match self.transact(&mut effects, &mut served) {
            Ok(()) => {
                self.commit_took = began.elapsed();
                self.acknowledge(effects, served);
                Ok(())
            }
            Err(runtime_store::Error::Full { .. }) => {
                let tried = self.engine.totals.commit;
                warn!("the disk of the queue filled up during a commit");
                if self.open_again()? && self.engine.totals.commit == tried {
                    self.acknowledge(effects, served);
                } else {
                    self.refuse_pushes();
                }
                Ok(())
            }
            Err(failure) => Err(self.shared.judge(failure)),
        }
    }

    fn transact(
        &mut self,
        effects: &mut Effects,
        served: &mut Vec<Vec<Granted>>,
    ) -> Result<(), runtime_store::Error> {
        self.engine.totals.commit += 1;
        let (engine, todo, takers) = (&mut self.engine, &self.todo, &self.takers);
        let now_ms = self.shared.now_ms();
        self.shared.database.write(|transaction| {
            let tables = Tables::open(transaction)?;
            let mut work = Work { engine, tables, now_ms, effects };
            for id in &todo.given_back {
                work.settle(*id, &End::GivenBack)?;
            }
            for asked in &todo.asked {
                let answer = work.apply(&asked.request)?;
                work.effects.answers.push(answer);
            }
            let answered = todo.asked.iter().zip(&work.effects.answers);
            work.keep(answered.filter_map(|(asked, answer)| asked.kept(answer)).collect())?;
            work.wake_waiting()?;
            for taker in takers {
                served.push(work.serve(taker)?);
            }
            work.finish()
        })
    }

    /// The transaction is on disk: tells everybody.
    fn acknowledge(&mut self, effects: Effects, served: Vec<Vec<Granted>>) {
        let Effects { answers, granted, let_go, cancelled, files, next_due_ms, next_forgotten_ms } = effects;
        (self.next_due_ms, self.next_forgotten_ms) = (next_due_ms, next_forgotten_ms);
        let todo = std::mem::take(&mut self.todo);
        self.answered = todo.asked.len();
        for id in let_go {
            self.engine.held.remove(&id);
        }
        for id in cancelled {
            if let Some(held) = self.engine.held.get(&id) {
                held.cancelled.cancel();
            }
        }
        self.engine.held.extend(granted);
        for (mut asked, answer) in todo.asked.into_iter().zip(answers) {
            if asked.kept(&answer).is_some() {
                asked.stay();
            }
            let _ = asked.reply.send(answer);
        }
        for granted in served {
            let Some(taker) = self.takers.pop_front() else { break };
            if granted.is_empty() {
                self.takers.push_back(taker);
                continue;
            }
            self.answered += 1;
            // One that nobody receives gives its call back when it is dropped.
            let _ = taker.reply.send(granted.into_iter().map(|granted| self.hand_out(granted)).collect());
        }
        for file in files {
            super::bodies::remove(&*self.shared.disk, file);
        }
    }

    fn hand_out(&self, granted: Granted) -> Taken {
        let lease = HeldLease::new(Arc::clone(&self.shared), Arc::clone(&granted.held), granted.id);
        Taken { granted, lease }
    }

    /// Opens the file again after the disk was full, with what the reserve held. Answers whether that worked; if so,
    /// the counts are what the disk has.
    fn open_again(&mut self) -> Result<bool> {
        self.reopen = true;
        self.reserve.give_up(self.shared.now_ms());
        let shared = &self.shared;
        // What is opened anew does not know which pages the check still wants.
        shared.check.iter().for_each(CheckStopper::stop);
        match shared.database.reopen() {
            Err(runtime_store::Error::Full { .. }) => return Ok(false),
            opened => opened.map_err(|error| shared.judge(error))?,
        }
        let sealer = &*self.engine.sealer;
        let read = shared
            .database
            .read(|snapshot| Ok((Functions::load(snapshot, sealer)?, read_totals(snapshot, sealer)?)));
        (self.engine.functions, self.engine.totals) = read.map_err(|error| match error {
            runtime_store::Error::Stopped(_) => shared.judge(error),
            damaged => shared.fail(damaged.to_string()),
        })?;
        self.reopen = false;
        Ok(true)
    }

    fn refuse_what_does_not_fit(&mut self) {
        let mut room = match self.reserve.room(self.shared.now_ms()) {
            Ok(room) => room,
            Err(error) => {
                warn!(%error, "the free space of the queue's disk cannot be told");
                0
            }
        };
        self.refuse(|bytes| {
            let needed = CALL_BYTES + 2 * bytes;
            let fits = room >= needed;
            room = room.saturating_sub(if fits { needed } else { 0 });
            fits
        });
    }

    fn refuse_pushes(&mut self) {
        self.refuse(|_| false);
    }

    fn refuse(&mut self, mut fits: impl FnMut(u64) -> bool) {
        let asked = std::mem::take(&mut self.todo.asked);
        for asked in asked {
            match &asked.request {
                Request::Push(push) if !fits(push.record.len() as u64) => {
                    let _ = asked.reply.send(Err(Error::StorageFull));
                }
                _ => self.todo.asked.push(asked),
            }
        }
    }

    /// Gives room back to the disk, where more than half of the file is unused.
    fn compact(&mut self) -> Result<()> {
        if *self.shared.checking.borrow() {
            return Ok(());
        }
        self.tidy = true;
        let length = self.shared.database.len_bytes();
        let (calls, bytes) = self.engine.functions.live();
        // Large bodies are in files of their own.
        let used =
            bytes.min(calls.saturating_mul(LARGEST_BYTES)) + self.engine.functions.ended() * ENDED_BYTES;
        let least = if self.reserve.is_held() { COMPACT_BYTES } else { COMPACT_FULL_BYTES };
        if length < least || used.saturating_mul(3) > length {
            return Ok(());
        }
        self.shared.compacting.send_replace(true);
        let compacted = self.shared.database.compact();
        self.shared.compacting.send_replace(false);
        match compacted {
            Ok(()) => {
                info!(
                    from_bytes = length,
                    to_bytes = self.shared.database.len_bytes(),
                    "the queue's file was compacted"
                );
                Ok(())
            }
            Err(runtime_store::Error::Full { .. }) => {
                self.reopen = true;
                Ok(())
            }
            Err(failure) => Err(self.shared.judge(failure)),
        }
    }

    /// Whether their calls were kept is unknown until the next start, which looks for files without calls.
    fn keep_files(&mut self) {
        self.todo.asked.iter_mut().for_each(Asked::stay);
    }
}

impl Todo {
    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.given_back.is_empty()
    }
}

/// What the queue as a whole remembers; nothing at its first start.
pub(super) fn read_totals(
    snapshot: &runtime_store::Snapshot,
    sealer: &runtime_store::Sealer,
) -> Result<Totals, runtime_store::Error> {
    let table = snapshot.open(TOTALS)?;
    let Some(record) = table.get(STATE)? else { return Ok(Totals::default()) };
    let value = sealer.unseal(TOTALS, STATE, record.bytes()).and_then(Totals::decode);
    value.map_err(|problem| runtime_store::Error::DamagedRecord {
        table: TOTALS,
        key: "state".into(),
        problem,
    })
}

/// Ends the inbox with the thread, however it ends: nobody waits for an answer that will not come.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            checking::mark(&*self.0.disk, "");
            self.0.fail("its writing thread panicked".into());
        }
        self.0.inbox.end();
        self.0.compacting.send_replace(false);
    }
}
