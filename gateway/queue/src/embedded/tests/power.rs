//! Power cuts under the queue as it is: everything acknowledged is there, nothing else is, nothing runs again that was
//! on record as done, and attempts are counted.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use super::*;

/// What the outside knows of a call.
#[derive(Clone, Default)]
struct Known {
    body: Vec<u8>,
    function: String,
    /// Whether the push was answered.
    accepted: bool,
    /// Attempts that were handed out, and those that were asked for when the power went.
    attempts: u32,
    /// What it came to for sure.
    ended: Option<State>,
    /// What else it may have come to.
    perhaps: Vec<State>,
    running: bool,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, accepted, attempts, ended, perhaps, .. } = self;
        write!(
            f,
            "{} bytes, accepted {accepted}, attempts {attempts}, {ended:?}, perhaps {perhaps:?}",
            body.len()
        )
    }
}

type Ledger = BTreeMap<String, Known>;

struct Worker<'a> {
    queue: &'a Arc<dyn Queue>,
    clock: &'a TestClock,
    dice: &'a mut Dice,
    ledger: &'a mut Ledger,
    running: Vec<Delivery>,
    /// How often somebody stopped waiting for calls, which may have cost one an attempt.
    dropped: u32,
}

enum Step {
    Push(String),
    Settle(String, Then),
    Cancel(String),
}

impl Worker<'_> {
    /// Rounds of changes, several at a time, until the disk refuses.
    async fn run(&mut self) {
        loop {
            let steps: Vec<_> = (0..=self.dice.below(5)).filter_map(|_| self.plan()).collect();
            let queue = self.queue;
            let done =
                join_all(steps.into_iter().map(async |(step, work)| (step, work.run(queue).await))).await;
            let mut failed = false;
            for (step, done) in done {
                failed |= done.is_none();
                self.note(step, done);
            }
            if failed || !self.take().await {
                return;
            }
            if self.dice.below(8) == 0 {
                self.clock.advance(Duration::from_secs(self.dice.below(30)));
                self.queue.wake();
            }
        }
    }

    fn plan(&mut self) -> Option<(Step, Work)> {
        let roll = self.dice.below(10);
        if roll < 4 {
            let call_id = format!("call{}", self.ledger.len());
            let size =
                if self.dice.below(5) == 0 { 65_537 + self.dice.below(9000) } else { self.dice.below(3000) };
            let fill = u8::try_from(self.dice.below(256)).unwrap();
            let known = Known {
                body: vec![fill; usize::try_from(size).unwrap()],
                function: ["a", "b"][usize::try_from(self.dice.below(2)).unwrap()].into(),
                ..Known::default()
            };
            let mut call = call(&known.function, &call_id, known.body.clone());
            let delayed = self.dice.below(4) == 0;
            call.not_before = delayed.then(|| self.clock.now() + Duration::from_secs(self.dice.below(20)));
            self.ledger.insert(call_id.clone(), known);
            return Some((Step::Push(call_id), Work::Push(call)));
        }
        if roll < 9 {
            let delivery = self.running.pop()?;
            let at = self.clock.now() + Duration::from_secs(self.dice.below(10));
            let then = [
                Then::Succeeded,
                Then::Succeeded,
                Then::RetryAt(at),
                Then::PutBack(at),
                Then::Dead,
                Then::Cancelled,
            ][usize::try_from(self.dice.below(6)).unwrap()];
            let call_id = delivery.call_id.as_str().to_owned();
            return Some((Step::Settle(call_id, then), Work::Settle(delivery, then)));
        }
        // Those that run would have to be told, which the stories show.
        let free = |known: &Known| known.accepted && !known.running && known.ended.is_none();
        let call_id = self.ledger.iter().find(|(_, known)| free(known))?.0.clone();
        self.ledger.get_mut(&call_id).unwrap().running = true;
        Some((Step::Cancel(call_id.clone()), Work::Cancel(call_id)))
    }

    fn note(&mut self, step: Step, done: Option<u64>) {
        let (Step::Push(call_id) | Step::Settle(call_id, _) | Step::Cancel(call_id)) = &step;
        let known = self.ledger.get_mut(call_id).unwrap();
        let end = match &step {
            Step::Push(_) => {
                known.accepted = done.is_some();
                return;
            }
            Step::Settle(_, Then::Succeeded) => Some(State::Succeeded),
            Step::Settle(_, Then::Dead) => Some(State::Dead),
            Step::Settle(_, Then::Cancelled) => Some(State::Cancelled),
            Step::Settle(_, Then::RetryAt(_)) => None,
            Step::Settle(_, Then::PutBack(_)) => {
                // Whether or not it is on record; one more attempt is among those that are allowed for.
                known.attempts -= 1;
                None
            }
            Step::Cancel(_) if done == Some(0) => None,
            Step::Cancel(_) => Some(State::Cancelled),
        };
        known.running = false;
        match done {
            Some(_) => known.ended = end,
            None => known.perhaps.extend(end),
        }
    }

    /// Takes what may be due, without waiting for what is not. Answers whether the queue still works.
    async fn take(&mut self) -> bool {
        let room: Room = {
            let places = usize::try_from(self.dice.below(3)).unwrap();
            Arc::new(move |_| places)
        };
        let mut next = self.queue.next(3, room);
        // What is taken by a wait that nobody waits for any more is given back, with its attempt counted.
        let mut taken = None;
        for _ in 0..3 {
            if let Some(done) = futures_util::FutureExt::now_or_never(&mut next) {
                taken = Some(done);
                break;
            }
            if self.queue.purge(&function("nobody"), Which::All).await.is_err() {
                break;
            }
        }
        match taken {
            None => {
                drop(next);
                self.dropped += 1;
                // Any of those that are free may have been taken meanwhile, once.
                self.queue.purge(&function("nobody"), Which::All).await.is_ok()
            }
            Some(Err(_)) => false,
            Some(Ok(deliveries)) => {
                for delivery in deliveries {
                    let known = self.ledger.get_mut(delivery.call_id.as_str()).unwrap();
                    (known.running, known.attempts) = (true, delivery.attempt);
                    self.running.push(delivery);
                }
                true
            }
        }
    }
}

enum Work {
    Push(NewCall),
    Settle(Delivery, Then),
    Cancel(String),
}

impl Work {
    async fn run(self, queue: &Arc<dyn Queue>) -> Option<u64> {
        match self {
            Self::Push(call) => queue.push(call).await.ok().map(|accepted| accepted.id.0),
            Self::Settle(delivery, then) => delivery.settle(outcome(then, 200)).await.ok().map(|()| 0),
            Self::Cancel(call_id) => {
                queue.cancel(&CallId::new(call_id)).await.ok().map(|done| done.ended + done.told)
            }
        }
    }
}

/// What is wrong with a queue after a cut.
async fn violations(queue: &Arc<dyn Queue>, clock: &TestClock, ledger: &Ledger, dropped: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found_live = 0;
    for (call_id, known) in ledger {
        let found = find(queue, call_id).await;
        let [status] = &found[..] else {
            if known.accepted || !found.is_empty() {
                wrong.push(format!("{call_id}: found {} times: {known:?}", found.len()));
            }
            continue;
        };
        let live = matches!(status.state, State::Queued | State::Waiting);
        found_live += u64::from(live);
        let right = match known.ended {
            Some(ended) => status.state == ended,
            None => live || known.perhaps.contains(&status.state),
        };
        if !right {
            wrong.push(format!("{call_id} is {:?}: {known:?}", status.state));
        }
    }
    for name in ["a", "b"] {
        queue.replay(&function(name), Which::All).await.unwrap();
    }
    clock.advance(Duration::from_secs(100));
    queue.wake();
    let counts = queue.counts().await.unwrap();
    let due: u64 = counts.iter().map(|counts| counts.queued + counts.waiting).sum();
    let mut left = due;
    let dead = ledger.keys().len() as u64;
    if due < found_live || due > found_live + dead {
        wrong.push(format!("{due} calls are due, {found_live} were found"));
    }
    while left > 0 {
        let taken = tokio::select! {
            taken = take(queue, 256) => taken,
            () = damaged(queue) => {
                wrong.push("there are damaged calls".into());
                break;
            }
        };
        for mut delivery in taken {
            left = left.saturating_sub(1);
            let Some(known) = ledger.get(delivery.call_id.as_str()) else {
                wrong.push(format!("{} comes from nowhere", delivery.call_id));
                continue;
            };
            let body = body(&mut delivery).await;
            let again = matches!(known.ended, Some(State::Succeeded | State::Cancelled));
            let may_be_replayed = known.ended == Some(State::Dead) || known.perhaps.contains(&State::Dead);
            let bound = known.attempts + 2 + dropped;
            let counted = may_be_replayed || (known.attempts + 1..=bound).contains(&delivery.attempt);
            if body != known.body || again || !counted || delivery.function != function(&known.function) {
                wrong.push(format!("{delivery:?} of {} bytes runs: {known:?}", body.len()));
            }
            delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
        }
    }
    wrong
}

/// Returns once a call was set aside: it will not be taken.
async fn damaged(queue: &Arc<dyn Queue>) {
    while queue.damaged(Page::first(1)).await.unwrap().is_empty() {
        suite::settle_down(queue).await;
    }
}

/// How much was at stake in all cuts.
#[derive(Debug, Default)]
struct Stakes {
    accepted: AtomicU64,
    large: AtomicU64,
    attempts: AtomicU64,
    ended: AtomicU64,
}

impl Stakes {
    fn add(&self, ledger: &Ledger) {
        let add = |total: &AtomicU64, of: fn(&Known) -> bool| {
            total.fetch_add(ledger.values().filter(|known| of(known)).count() as u64, Ordering::Relaxed);
        };
        add(&self.accepted, |known| known.accepted);
        add(&self.large, |known| known.accepted && known.body.len() > bodies::INLINE_BYTES);
        add(&self.attempts, |known| known.attempts > 0);
        add(&self.ended, |known| known.ended.is_some());
    }

    fn least(&self) -> u64 {
        let all = [&self.accepted, &self.large, &self.attempts, &self.ended];
        all.map(|total| total.load(Ordering::Relaxed)).into_iter().min().unwrap()
    }
}

async fn cut_once(
    base: &SimulatedDisk,
    seed: u64,
    left_out: Option<SyncKind>,
    stakes: &Stakes,
) -> Result<Vec<String>> {
    let mut dice = Dice::new(seed);
    // Some begin where there is nothing.
    let disk = if dice.below(8) == 0 { SimulatedDisk::default() } else { base.copy() };
    if let Some(kind) = left_out {
        disk.leave_out(kind);
    }
    let clock = TestClock::new();
    let mut ledger = Ledger::new();
    let queue = open_on(&disk, &clock, SMALL)?;
    disk.cut_power_after(dice.below(600));
    let (queue_of, clock_of) = (&queue, &clock);
    let mut worker = Worker {
        queue: queue_of,
        clock: clock_of,
        dice: &mut dice,
        ledger: &mut ledger,
        running: Vec::new(),
        dropped: 0,
    };
    worker.run().await;
    let dropped = worker.dropped;
    drop(worker);
    drop(queue);
    stakes.add(&ledger);

    let mut rebooted = disk.after_power_cut(&mut dice);
    if dice.below(4) == 0 {
        // The power goes again while the queue is being repaired.
        rebooted.cut_power_after(dice.below(12));
        drop(open_on(&rebooted, &clock, SMALL));
        rebooted = rebooted.after_power_cut(&mut dice);
    }
    let queue = open_on(&rebooted, &clock, SMALL)?;
    Ok(violations(&queue, &clock, &ledger, dropped).await)
}

async fn base() -> SimulatedDisk {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    // Ended calls alone, so that all that is due is the ledger's.
    for number in 0..20u8 {
        let size = if number % 5 == 0 { 70_000 } else { 700 };
        queue.push(call("a", &format!("base{number}"), vec![number; size])).await.unwrap();
        take_one(&queue).await.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    }
    queue.close().await.unwrap();
    disk
}

/// Cuts of these seeds on all cores: how many went wrong, and what the first of them found.
fn cut(seeds: std::ops::Range<u64>, left_out: Option<SyncKind>, stakes: &Stakes) -> (u64, Option<String>) {
    let next = AtomicU64::new(seeds.start);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let base = runtime().block_on(base());
    let work = || {
        let (runtime, mut wrong, mut first) = (runtime(), 0, None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (wrong, first);
            }
            let found = match runtime.block_on(cut_once(&base, seed, left_out, stakes)) {
                Ok(violations) if violations.is_empty() => continue,
                Ok(violations) => format!("cut {seed}: {violations:#?}"),
                Err(error) => format!("cut {seed}: it does not open: {error:?}"),
            };
            wrong += 1;
            first.get_or_insert(found);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let found = workers.into_iter().map(|worker| worker.join().unwrap());
        found.fold((0, None), |(all, first), (wrong, found)| (all + wrong, first.or(found)))
    })
}

#[test]
fn power_cuts_lose_nothing_acknowledged_and_bring_nothing_back() {
    let cuts = std::env::var("FAWN_QUEUE_CUTS").map_or(5000, |cuts| cuts.parse().unwrap());
    let stakes = Stakes::default();
    let (wrong, first) = cut(0..cuts, None, &stakes);
    assert_eq!(wrong, 0, "of {cuts} cuts; the first: {}", first.unwrap_or_default());
    assert!(stakes.least() > cuts / 2, "too little was at stake: {stakes:?}");
    eprintln!("{cuts} cuts: {stakes:?}");
}

/// The control: were the simulator blind to any of the syncs, the test above would prove nothing for it.
#[test]
fn leaving_out_any_kind_of_sync_is_caught() {
    for kind in [SyncKind::Database, SyncKind::Content, SyncKind::Names] {
        let (wrong, _) = cut(0..100, Some(kind), &Stakes::default());
        assert!(wrong > 5, "without {kind:?} only {wrong} of 100 cuts went wrong");
    }
}
