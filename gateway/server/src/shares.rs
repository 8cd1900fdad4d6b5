use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use runtime_api::FunctionName;
use tokio::sync::OwnedSemaphorePermit;

use crate::concurrency::Concurrency;

/// Functions whose concurrency is remembered, before those are forgotten that no call runs of.
const MOST_REMEMBERED: usize = 4096;

/// What each function has of the places that there are for the calls of all.
///
/// A function alone may have three quarters of them. As soon as others have calls too, each may have one part of as many
/// as they are and one more, so that the next function to come finds room, however long calls take.
pub(crate) struct Shares {
    /// Calls at once.
    running: usize,
    /// Answers that are posted at once.
    posting: usize,
    /// Told when there is room again.
    room_again: RoomAgain,
    functions: Mutex<Functions>,
}

type RoomAgain = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Functions {
    by_name: HashMap<FunctionName, Concurrency>,
    /// Those that a call or an answer is on its way of.
    active: usize,
}

impl Shares {
    pub(crate) fn new(running: usize, posting: usize, room_again: RoomAgain) -> Arc<Self> {
        Arc::new(Self { running, posting, room_again, functions: Mutex::default() })
    }

    /// How many more calls of a function may begin.
    pub(crate) fn room(&self, function: &FunctionName) -> usize {
        let functions = self.functions();
        let calls = functions.by_name.get(function);
        let others = functions.active - usize::from(calls.is_some_and(|calls| !calls.is_idle()));
        let (running, posting) = (share(self.running, others), share(self.posting, others));
        calls.unwrap_or(&Concurrency::default()).room(running, posting)
    }

    /// A call begins.
    pub(crate) fn take(self: &Arc<Self>, function: &FunctionName, place: OwnedSemaphorePermit) -> Share {
        let mut functions = self.functions();
        if functions.by_name.len() >= MOST_REMEMBERED && !functions.by_name.contains_key(function) {
            functions.by_name.retain(|_, calls| !calls.is_idle());
        }
        functions.change(function, Concurrency::begin);
        drop(functions);
        Share { shares: Arc::clone(self), function: function.clone(), place: Some(place) }
    }

    fn functions(&self) -> MutexGuard<'_, Functions> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Functions {
    fn change(&mut self, function: &FunctionName, change: impl FnOnce(&mut Concurrency)) {
        let calls = self.by_name.entry(function.clone()).or_default();
        let was_idle = calls.is_idle();
        change(calls);
        match (was_idle, calls.is_idle()) {
            (true, false) => self.active += 1,
            (false, true) => self.active -= 1,
            _ => {}
        }
    }
}

/// What one function may have of what there is for all, while so many others have some.
fn share(of_all: usize, others: usize) -> usize {
    let share = if others == 0 { of_all - of_all / 4 } else { of_all / (others + 2) };
    share.max(1)
}

/// What a call has of its function's share, and its place among all calls. Both are given back when this is dropped.
pub(crate) struct Share {
    shares: Arc<Shares>,
    function: FunctionName,
    place: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// What the call tells of how many may be made at once.
    pub(crate) fn learn(&self, began: Instant, too_much: bool) {
        self.change(|calls| calls.learn(began, Instant::now(), too_much));
    }

    /// The call has ended, and its answer is to be posted.
    pub(crate) fn post(&mut self) {
        self.change(Concurrency::begin_to_post);
        self.place = None;
        (self.shares.room_again)();
    }

    fn change(&self, change: impl FnOnce(&mut Concurrency)) {
        self.shares.functions().change(&self.function, change);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.change(if self.place.is_some() { Concurrency::end } else { Concurrency::end_posting });
        self.place = None;
        (self.shares.room_again)();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn name(text: &str) -> FunctionName {
        FunctionName::parse(text).unwrap()
    }

    #[test]
    fn each_function_has_its_share_and_the_next_one_finds_room() {
        let (shares, places) = (Shares::new(64, 256, Box::new(|| {})), Arc::new(Semaphore::new(64)));
        let take = |function: &FunctionName| {
            let taken = shares.room(function).min(places.available_permits());
            let place = || places.clone().try_acquire_owned().unwrap();
            Vec::from_iter((0..taken).map(|_| shares.take(function, place())))
        };
        let grown = |function: &FunctionName| {
            let share = shares.take(function, places.clone().try_acquire_owned().unwrap());
            (0..10_000).for_each(|_| share.learn(Instant::now(), false));
        };
        let (first, second, third) = (name("first"), name("second"), name("third"));
        [&first, &second, &third].into_iter().for_each(grown);
        let of_first = take(&first);
        assert_eq!((of_first.len(), shares.room(&first)), (48, 0));
        let of_second = take(&second);
        assert_eq!(of_second.len(), 16);
        drop(of_first);
        assert_eq!(take(&first).len(), 21);
        let mut of_third = take(&third);
        assert_eq!(of_third.len(), 21);
        // What is being posted is no call that runs, and keeps the function active.
        of_third.iter_mut().for_each(Share::post);
        assert_eq!((places.available_permits(), shares.room(&third)), (48, 21));
        drop((of_second, of_third));
        assert_eq!(shares.functions().active, 0);
    }

    #[test]
    fn answers_that_nobody_takes_stop_their_function_alone() {
        let (shares, places) = (Shares::new(8, 16, Box::new(|| {})), Arc::new(Semaphore::new(1000)));
        let slow = name("slow");
        let mut posting = Vec::new();
        while shares.room(&slow) > 0 {
            let mut share = shares.take(&slow, places.clone().try_acquire_owned().unwrap());
            share.post();
            posting.push(share);
        }
        assert_eq!(posting.len(), 12);
        assert_eq!(shares.room(&name("other")), 2);
        posting.pop();
        assert_eq!(shares.room(&slow), 6);
    }

    #[test]
    fn nobody_is_left_without_any() {
        for (all, others, one) in [(64, 0, 48), (64, 1, 21), (64, 62, 1), (64, 5000, 1), (1, 0, 1), (2, 0, 2)]
        {
            assert_eq!(share(all, others), one, "{all} {others}");
        }
    }
}
