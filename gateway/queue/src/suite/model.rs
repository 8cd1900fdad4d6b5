//! Chance against a model: what a queue does is what a list in memory would.

use std::collections::BTreeMap;

use runtime_store::simulated_disk::Dice;

use super::*;

const FUNCTIONS: [&str; 3] = ["a", "b", "c.dev"];

struct Entry {
    function: FunctionName,
    call_id: String,
    key: Option<u64>,
    body: Vec<u8>,
    state: State,
    due: SystemTime,
    ended: Option<SystemTime>,
    attempt: u32,
    tries: usize,
    cancel: bool,
}

struct Model {
    entries: BTreeMap<EntryId, Entry>,
    running: Vec<Delivery>,
}

/// The pause of a call that was lost more than once by ended processes, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Random work, with restarts, on one engine.
pub(crate) async fn run(rig: &Rig, seed: u64, steps: usize) {
    let mut dice = Dice::new(seed);
    let mut queue = rig.open();
    let mut model = Model { entries: BTreeMap::new(), running: Vec::new() };
    for step in 0..steps {
        match dice.below(16) {
            0..=4 => model.push(rig, &queue, &mut dice).await,
            5..=7 => model.take(rig, &queue, &mut dice).await,
            8..=11 => model.settle(rig, &queue, &mut dice).await,
            12 => model.cancel(rig, &queue, &mut dice).await,
            13 => model.letters(rig, &queue, &mut dice).await,
            14 => {
                let seconds = if dice.below(30) == 0 { 25 * 3600 } else { dice.below(20) };
                rig.advance(&queue, seconds);
            }
            _ if dice.below(4) == 0 => {
                queue.close().await.unwrap();
                drop(queue);
                queue = rig.open();
                model.restart(rig, &queue).await;
            }
            _ => {}
        }
        settle_down(&queue).await;
        model.forget(rig);
        model.compare(rig, &queue, &format!("seed {seed}, step {step}")).await;
    }
}

impl Entry {
    fn live(&self) -> bool {
        !matches!(self.state, State::Succeeded | State::Cancelled)
    }

    fn end(&mut self, rig: &Rig, state: State) {
        (self.state, self.ended) = (state, Some(rig.clock.now()));
        self.body.clear();
    }

    fn retry(&mut self, rig: &Rig, due: SystemTime) {
        if self.cancel {
            self.end(rig, State::Cancelled);
        } else {
            (self.state, self.due) = (State::Queued, due);
        }
    }
}

impl Model {
    async fn push(&mut self, rig: &Rig, queue: &Arc<dyn Queue>, dice: &mut Dice) {
        let name = FUNCTIONS[usize::try_from(dice.below(3)).unwrap()];
        let call_id = format!("id{}", dice.below(6));
        let key = (dice.below(3) == 0).then(|| dice.below(4));
        let delay = if dice.below(3) == 0 { dice.below(15) } else { 0 };
        let size = if dice.below(12) == 0 { 70_000 } else { dice.below(200) };
        let body = vec![u8::try_from(dice.below(256)).unwrap(); usize::try_from(size).unwrap()];
        let due = rig.clock.now() + Duration::from_secs(delay);
        let call = NewCall {
            not_before: (delay > 0).then_some(due),
            idempotency_key: key.map(|key| key.to_string()),
            ..call(name, &call_id, body.clone())
        };
        let accepted = queue.push(call).await.unwrap();
        let same = |entry: &&Entry| key.is_some() && entry.key == key && entry.function == function(name);
        assert_eq!(accepted.existed, self.entries.values().any(|entry| same(&entry)));
        if accepted.existed {
            let entry = &self.entries[&accepted.id];
            assert!(same(&entry) && entry.call_id == accepted.call_id.as_str());
            return;
        }
        assert!(self.entries.last_key_value().is_none_or(|(last, _)| accepted.id > *last));
        let (function, state) = (function(name), State::Queued);
        let entry = Entry {
            function,
            call_id,
            key,
            body,
            state,
            due,
            ended: None,
            attempt: 0,
            tries: 0,
            cancel: false,
        };
        self.entries.insert(accepted.id, entry);
    }

    async fn take(&mut self, rig: &Rig, queue: &Arc<dyn Queue>, dice: &mut Dice) {
        let max = usize::try_from(dice.below(4) + 1).unwrap();
        let places: Vec<usize> = FUNCTIONS.iter().map(|_| usize::try_from(dice.below(3)).unwrap()).collect();
        let room = move |name: &FunctionName| {
            FUNCTIONS
                .iter()
                .zip(&places)
                .find(|(known, _)| function(known) == *name)
                .map_or(0, |(_, room)| *room)
        };
        let now = rig.clock.now();
        let due = |entry: &Entry| entry.state == State::Queued && entry.due <= now;
        let possible: usize = FUNCTIONS
            .iter()
            .map(|name| {
                let of = self.entries.values().filter(|entry| entry.function == function(name) && due(entry));
                of.count().min(room(&function(name)))
            })
            .sum();
        if possible == 0 {
            return;
        }
        let taken = queue.next(max, Arc::new(room.clone())).await.unwrap();
        assert_eq!(taken.len(), max.min(possible));
        for mut delivery in taken {
            let first =
                self.entries.iter().find(|(_, entry)| entry.function == delivery.function && due(entry));
            assert_eq!(first.map(|(id, _)| *id), Some(delivery.id), "not the first of {}", delivery.function);
            let entry = self.entries.get_mut(&delivery.id).unwrap();
            entry.state = State::Running;
            entry.attempt += 1;
            entry.tries += 1;
            assert_eq!(
                (delivery.attempt, delivery.call_id.as_str()),
                (entry.attempt, entry.call_id.as_str())
            );
            assert_eq!(body(&mut delivery).await, entry.body);
            self.running.push(delivery);
        }
    }

    async fn settle(&mut self, rig: &Rig, queue: &Arc<dyn Queue>, dice: &mut Dice) {
        if self.running.is_empty() {
            return;
        }
        let delivery =
            self.running.swap_remove(usize::try_from(dice.below(self.running.len() as u64)).unwrap());
        let entry = self.entries.get_mut(&delivery.id).unwrap();
        let at = rig.clock.now() + Duration::from_secs(dice.below(10));
        match dice.below(7) {
            0 => {
                drop(delivery);
                settle_down(queue).await;
                entry.retry(rig, rig.clock.now());
            }
            1 => {
                delivery.settle(outcome(Then::RetryAt(at), 500)).await.unwrap();
                entry.retry(rig, at);
            }
            6 => {
                delivery.settle(outcome(Then::PutBack(at), 503)).await.unwrap();
                entry.attempt -= 1;
                entry.tries -= 1;
                entry.retry(rig, at);
            }
            2 | 3 => {
                delivery.settle(outcome(Then::Dead, 500)).await.unwrap();
                match entry.cancel {
                    true => entry.end(rig, State::Cancelled),
                    false => entry.state = State::Dead,
                }
            }
            4 => {
                delivery.settle(outcome(Then::Cancelled, 500)).await.unwrap();
                entry.end(rig, State::Cancelled);
            }
            _ => {
                delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
                entry.end(rig, State::Succeeded);
            }
        }
    }

    async fn cancel(&mut self, rig: &Rig, queue: &Arc<dyn Queue>, dice: &mut Dice) {
        let call_id = format!("id{}", dice.below(6));
        let cancelled = queue.cancel(&CallId::new(call_id.as_str())).await.unwrap();
        let mut expected = Cancelled::default();
        for entry in self.entries.values_mut().filter(|entry| entry.call_id == call_id) {
            match entry.state {
                State::Queued => {
                    entry.end(rig, State::Cancelled);
                    expected.ended += 1;
                }
                State::Running => {
                    entry.cancel = true;
                    expected.told += 1;
                }
                _ => {}
            }
        }
        assert_eq!(cancelled, expected);
    }

    async fn letters(&mut self, rig: &Rig, queue: &Arc<dyn Queue>, dice: &mut Dice) {
        let name = function(FUNCTIONS[usize::try_from(dice.below(3)).unwrap()]);
        let dead = |entry: &Entry| entry.function == name && entry.state == State::Dead;
        let mut ids: Vec<EntryId> =
            self.entries.iter().filter(|(_, entry)| dead(entry)).map(|(id, _)| *id).collect();
        let listed = queue.dead_letters(&name, Page::first(1000)).await.unwrap();
        assert_eq!(listed.iter().map(|status| status.id).collect::<Vec<_>>(), ids);
        let mut which = Which::All;
        if dice.below(2) == 0 && !ids.is_empty() {
            ids = vec![ids[usize::try_from(dice.below(ids.len() as u64)).unwrap()]];
            which = Which::One(ids[0]);
        }
        if dice.below(3) == 0 {
            assert_eq!(queue.purge(&name, which).await.unwrap(), ids.len() as u64);
            self.entries.retain(|id, _| !ids.contains(id));
        } else {
            assert_eq!(queue.replay(&name, which).await.unwrap(), ids.len() as u64);
            for id in ids {
                let entry = self.entries.get_mut(&id).unwrap();
                entry.attempt = 0;
                entry.retry(rig, rig.clock.now());
            }
        }
    }

    async fn restart(&mut self, rig: &Rig, queue: &Arc<dyn Queue>) {
        self.running.clear();
        let now = rig.clock.now();
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.state == State::Running) {
            let mut due = now;
            if entry.attempt > 1 && !entry.cancel {
                let found = find(queue, &entry.call_id).await;
                due = found.iter().find(|status| status.id == *id).and_then(|status| status.due).unwrap();
                assert!(due > now && due <= now + LONGEST_PAUSE, "{due:?} {now:?}");
            }
            entry.retry(rig, due);
        }
    }

    fn forget(&mut self, rig: &Rig) {
        let now = rig.clock.now();
        let old = |ended: SystemTime| ended + Duration::from_secs(24 * 3600) <= now;
        self.entries.retain(|_, entry| !entry.ended.is_some_and(old));
    }

    async fn compare(&self, rig: &Rig, queue: &Arc<dyn Queue>, when: &str) {
        for number in 0..6 {
            let call_id = format!("id{number}");
            let found = find(queue, &call_id).await;
            let expected = self.entries.iter().filter(|(_, entry)| entry.call_id == call_id);
            let expected: Vec<_> = expected
                .map(|(id, entry)| {
                    let waits = entry.state == State::Queued && entry.due > rig.clock.now();
                    (
                        *id,
                        entry.function.clone(),
                        if waits { State::Waiting } else { entry.state },
                        entry.tries,
                    )
                })
                .collect();
            let found: Vec<_> = found
                .into_iter()
                .map(|status| (status.id, status.function, status.state, status.attempts.len()))
                .collect();
            assert_eq!(found, expected, "{when}: {call_id}");
        }
        let counts = queue.counts().await.unwrap();
        for name in FUNCTIONS.map(function) {
            let of = |states: &[State]| {
                let of = |entry: &&Entry| entry.function == name && states.contains(&entry.state);
                self.entries.values().filter(of).count() as u64
            };
            let found = counts.iter().find(|counts| counts.function == name);
            let found = found.map(|counts| {
                let due = counts.queued + counts.waiting;
                (due, counts.running, counts.dead, counts.succeeded, counts.cancelled, counts.bytes > 0)
            });
            let live = self.entries.values().any(|entry| entry.function == name && entry.live());
            let expected = (
                of(&[State::Queued]),
                of(&[State::Running]),
                of(&[State::Dead]),
                of(&[State::Succeeded]),
                of(&[State::Cancelled]),
                live,
            );
            assert_eq!(found.unwrap_or_default(), expected, "{when}: {name}");
        }
    }
}
