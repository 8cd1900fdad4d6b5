//! Guests that compute for long. Each begins on the thread that serves its call; one that does not give way by itself
//! goes on, to its end, on threads of lower priority, so that short calls need not wait for it.

use std::{
    cell::Cell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use runtime_api::{Error, Result};
use tokio::runtime::Handle;

use crate::pool::Room;

/// What a guest computes on the thread that serves it, as far as ticks notice.
pub(crate) const LONG: Duration = Duration::from_millis(10);

/// How much the threads of long guests stand back behind those that serve.
const NICE: i32 = 10;

thread_local! {
    /// Whether a tick hit the guest that is polled on this thread.
    static TICKED: Cell<bool> = const { Cell::new(false) };
}

/// What a guest does at each tick: it lets the executor look at its sockets, its timers and its other guests.
pub(crate) fn give_way() -> impl Future<Output = ()> + Send {
    TICKED.set(true);
    tokio::task::yield_now()
}

/// The threads of long guests. They take turns, first come, first served.
pub(crate) struct LongThreads {
    queue: Sender<Arc<dyn TakeTurn>>,
}

impl LongThreads {
    /// The threads end with the last sender to their queue.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let (queue, guests) = mpsc::channel();
        let guests = Arc::new(Mutex::new(guests));
        for _ in 0..count {
            let guests = guests.clone();
            let thread = thread::Builder::new().name("long-guest".into());
            thread.spawn(move || take_turns(&guests)).map_err(Error::internal)?;
        }
        Ok(Self { queue })
    }
}

fn take_turns(guests: &Mutex<Receiver<Arc<dyn TakeTurn>>>) {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "long guests run at the priority of short ones");
    }
    loop {
        let next = guests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(guest) = next else { return };
        // Only what drops a guest may still panic: its turn itself tells its caller.
        if catch_unwind(AssertUnwindSafe(|| guest.take_turn())).is_err() {
            tracing::error!("a long guest could not be ended properly");
        }
    }
}

/// A guest from its first instruction to its end, with its store.
pub(crate) type BoxedRun<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A guest and its place on the node, which is given back after it.
struct Work<T> {
    run: BoxedRun<T>,
    room: Room,
}

/// What came of a guest, and its place.
type Ended<T> = (T, Room);

/// A running guest, wherever it runs. Dropping it ends the guest: at once, or at its next tick.
pub(crate) struct Run<T: Send + 'static> {
    place: Place<T>,
    /// How long it ran when a tick hit it; it need not have run since the tick before.
    computed: Duration,
}

enum Place<T> {
    Here(Work<T>),
    Away(Arc<LongGuest<T>>),
    Gone,
}

impl<T: Send> Run<T> {
    pub(crate) fn new(run: BoxedRun<T>, room: Room) -> Self {
        Self { place: Place::Here(Work { run, room }), computed: Duration::ZERO }
    }

    /// Where a guest goes on that has not ended yet.
    fn stay_or_leave(&mut self, work: Work<T>, since: Instant) -> Place<T> {
        if TICKED.get() {
            self.computed += since.elapsed();
        }
        if self.computed < LONG {
            return Place::Here(work);
        }
        match Handle::try_current() {
            Ok(runtime) => Place::Away(LongGuest::start(work, runtime)),
            Err(_) => Place::Here(work),
        }
    }
}

impl<T: Send> Future for Run<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<T>> {
        self.place = match mem::replace(&mut self.place, Place::Gone) {
            Place::Here(mut work) => {
                TICKED.set(false);
                let since = Instant::now();
                if let Poll::Ready(returned) = work.run.as_mut().poll(cx) {
                    return Poll::Ready((returned, work.room));
                }
                self.stay_or_leave(work, since)
            }
            place => place,
        };
        match &self.place {
            Place::Away(guest) => guest.poll_ended(cx),
            Place::Here(_) | Place::Gone => Poll::Pending,
        }
    }
}

impl<T: Send> Drop for Run<T> {
    fn drop(&mut self) {
        if let Place::Away(guest) = &self.place {
            guest.cancel();
        }
    }
}

/// A guest on the threads of long guests. What it waits for is still watched by the runtime that it comes from.
struct LongGuest<T> {
    queue: Sender<Arc<dyn TakeTurn>>,
    runtime: Handle,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    stage: Stage<T>,
    /// Who waits for the end.
    reader: Option<Waker>,
}

enum Stage<T> {
    /// In the queue.
    Queued(Work<T>),
    /// Having its turn; woken if it wants another.
    Running {
        woken: bool,
    },
    /// Until something wakes it.
    Waiting(Work<T>),
    Ended(thread::Result<Ended<T>>),
    /// Cancelled, or its end was told.
    Gone,
}

impl<T: Send + 'static> LongGuest<T> {
    fn start(work: Work<T>, runtime: Handle) -> Arc<Self> {
        let queue = work.room.engine().long_threads().queue.clone();
        let now = Mutex::new(Now { stage: Stage::Queued(work), reader: None });
        let guest = Arc::new(Self { queue, runtime, now });
        guest.clone().enqueue();
        guest
    }

    fn enqueue(self: Arc<Self>) {
        let queue = self.queue.clone();
        // Threads read the queue for as long as it has senders, of which this is one.
        let _ = queue.send(self);
    }

    fn now(&self) -> MutexGuard<'_, Now<T>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended<T>> {
        let mut now = self.now();
        match mem::replace(&mut now.stage, Stage::Gone) {
            Stage::Ended(Ok(ended)) => return Poll::Ready(ended),
            Stage::Ended(Err(panic)) => {
                drop(now);
                resume_unwind(panic)
            }
            stage => now.stage = stage,
        }
        now.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Drops the guest, unless it has its turn: then that is left to its thread.
    fn cancel(&self) {
        let stage = mem::replace(&mut self.now().stage, Stage::Gone);
        drop(stage);
    }

    fn go_on(self: Arc<Self>, work: Work<T>) {
        let mut now = self.now();
        match now.stage {
            Stage::Running { woken: false } => now.stage = Stage::Waiting(work),
            Stage::Running { woken: true } => {
                now.stage = Stage::Queued(work);
                drop(now);
                self.enqueue();
            }
            // Cancelled meanwhile. What is dropped may wake this guest, which takes the lock.
            _ => {
                drop(now);
                drop(work);
            }
        }
    }

    fn end(&self, ended: thread::Result<Ended<T>>) {
        let mut now = self.now();
        if let Stage::Gone = now.stage {
            drop(now);
            drop(ended);
            return;
        }
        now.stage = Stage::Ended(ended);
        let reader = now.reader.take();
        drop(now);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Lets a guest run until its next tick, or until it has to wait.
trait TakeTurn: Send + Sync {
    fn take_turn(self: Arc<Self>);
}

impl<T: Send + 'static> TakeTurn for LongGuest<T> {
    fn take_turn(self: Arc<Self>) {
        let mut now = self.now();
        let mut work = match mem::replace(&mut now.stage, Stage::Running { woken: false }) {
            Stage::Queued(work) => work,
            stage => {
                now.stage = stage;
                return;
            }
        };
        drop(now);
        let _runtime = self.runtime.enter();
        let waker = Waker::from(self.clone());
        let poll = AssertUnwindSafe(|| work.run.as_mut().poll(&mut Context::from_waker(&waker)));
        match catch_unwind(poll) {
            Ok(Poll::Pending) => self.clone().go_on(work),
            Ok(Poll::Ready(returned)) => self.end(Ok((returned, work.room))),
            Err(panic) => {
                drop(work);
                self.end(Err(panic));
            }
        }
    }
}

impl<T: Send + 'static> Wake for LongGuest<T> {
    fn wake(self: Arc<Self>) {
        let mut now = self.now();
        match mem::replace(&mut now.stage, Stage::Gone) {
            Stage::Waiting(work) => {
                now.stage = Stage::Queued(work);
                drop(now);
                self.enqueue();
            }
            Stage::Running { .. } => now.stage = Stage::Running { woken: true },
            stage => now.stage = stage,
        }
    }
}
