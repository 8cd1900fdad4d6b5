//! Waiting for time to pass, for input, and for room for output.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, sleep_until};
use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, GuestMemory, Outcome},
    clocks::Clock,
    descriptors::{Descriptor, Stream},
    wait_from_the_start,
};
use crate::clocks::{realtime, wait, wait_until};

/// Things that one call may wait for, as `poll(2)` bounds its descriptors.
const MAX_SUBSCRIPTIONS: usize = 1024;

// Bytes of a subscription and of an event (WASI preview 1).
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;

const ABSOLUTE: u16 = 1;
const HANGUP: u16 = 1;

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap_async(
        PREVIEW1,
        "poll_oneoff",
        |guest: Guest<'_>, (list, events, count, ready): (u32, u32, u32, u32)| {
            let mut polled = None;
            wait_from_the_start(guest, move |process, memory, cx| {
                let polled = match &mut polled {
                    Some(polled) => polled,
                    none => none.insert(Polled::read(process, memory, list as usize, count)?),
                };
                match polled.poll(process, cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => Poll::Ready(
                        polled
                            .write(memory, events as usize)
                            .and_then(|happened| memory.put_size(ready as usize, happened)),
                    ),
                }
            })
        },
    )?;
    Ok(())
}

/// What a guest waits for.
struct Subscription {
    userdata: u64,
    event: Event,
    happened: bool,
}

enum Event {
    /// At an instant; none when it lies too far ahead to be told.
    Clock(Option<Instant>),
    Readable,
    Writable(Stream),
    /// A file can always be read. Nothing is left of one that was read to its end.
    File {
        at_end: bool,
    },
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A guest that waits.
struct Polled {
    subscriptions: Vec<Subscription>,
    /// When the first clock's time comes, and what ends then.
    timer: Option<(Instant, Timer)>,
}

impl Polled {
    fn read(process: &Process, memory: &GuestMemory<'_>, list: usize, count: u32) -> Outcome<Self> {
        let count = count as usize;
        // Nothing to wait for would be to wait for ever.
        if count == 0 {
            return Err(Errno::Inval.into());
        }
        if count * SUBSCRIPTION > process.most_bytes() {
            return Err(Errno::Nomem.into());
        }
        let now = Instant::now();
        let mut subscriptions = Vec::with_capacity(count.min(MAX_SUBSCRIPTIONS));
        let mut first = None;
        for index in 0..count {
            if index == MAX_SUBSCRIPTIONS {
                return Err(Errno::Inval.into());
            }
            let at = list + index * SUBSCRIPTION;
            let userdata = memory.u64(at)?;
            let event = Event::read(process, memory, at, now)?;
            if let Event::Clock(Some(instant)) = event {
                first = Some(first.map_or(instant, |first: Instant| first.min(instant)));
            }
            subscriptions.push(Subscription { userdata, event, happened: false });
        }
        Ok(Self { subscriptions, timer: first.map(|first| (first, timer(first, now))) })
    }

    /// Ready when something has happened.
    fn poll(&mut self, process: &mut Process, cx: &mut Context<'_>) -> Poll<()> {
        let due = match &mut self.timer {
            Some((first, timer)) => match timer.as_mut().poll(cx) {
                Poll::Ready(()) => Some(Instant::now().max(*first)),
                Poll::Pending => None,
            },
            None => None,
        };
        let mut any = false;
        for subscription in &mut self.subscriptions {
            subscription.happened = match subscription.event {
                Event::Clock(instant) => due.zip(instant).is_some_and(|(now, instant)| instant <= now),
                Event::Readable => process.input.poll_fill(cx).is_ready(),
                Event::Writable(Stream::Stderr) if process.errors.is_some() => true,
                Event::Writable(_) => process.output.poll_room(cx).is_ready(),
                Event::File { .. } => true,
            };
            any |= subscription.happened;
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Tells what has happened, in the order in which it was asked for. Returns how many events that are.
    fn write(&self, memory: &mut GuestMemory<'_>, events: usize) -> Outcome<usize> {
        let happened = self.subscriptions.iter().filter(|subscription| subscription.happened);
        let mut count = 0;
        for (index, Subscription { userdata, event, .. }) in happened.enumerate() {
            let (kind, bytes, flags) = match event {
                Event::Clock(_) => (0, 0, 0),
                Event::Readable => (1, 1, 0),
                Event::Writable(_) => (2, 1, 0),
                Event::File { at_end } => (1, 1, if *at_end { HANGUP } else { 0 }),
            };
            let at = events + index * EVENT;
            memory.put_u64(at, *userdata)?;
            memory.put_u16(at + 8, 0)?;
            memory.put_u8(at + 10, kind)?;
            memory.put_u64(at + 16, bytes)?;
            memory.put_u16(at + 24, flags)?;
            count = index + 1;
        }
        Ok(count)
    }
}

/// An instant that has passed already still lets others go first, so that a guest that asks in a loop holds up nobody.
fn timer(instant: Instant, now: Instant) -> Timer {
    if instant <= now { Box::pin(tokio::task::yield_now()) } else { Box::pin(sleep_until(instant)) }
}

impl Event {
    fn read(process: &Process, memory: &GuestMemory<'_>, at: usize, now: Instant) -> Outcome<Self> {
        match memory.u8(at + 8)? {
            0 => Self::read_clock(process, memory, at + 16, now),
            1 => match process.descriptors.get(memory.u32(at + 16)?)? {
                Descriptor::Stream(Stream::Stdin) => Ok(Self::Readable),
                Descriptor::File(open) => {
                    Ok(Self::File { at_end: open.file.read(open.position, 1).is_empty() })
                }
                Descriptor::Stream(_) | Descriptor::Directory { .. } => Err(Errno::Badf.into()),
            },
            2 => match process.descriptors.get(memory.u32(at + 16)?)? {
                Descriptor::Stream(stream @ (Stream::Stdout | Stream::Stderr)) => Ok(Self::Writable(*stream)),
                Descriptor::Stream(_) | Descriptor::Directory { .. } | Descriptor::File(_) => {
                    Err(Errno::Badf.into())
                }
            },
            _ => Err(Errno::Inval.into()),
        }
    }

    fn read_clock(process: &Process, memory: &GuestMemory<'_>, at: usize, now: Instant) -> Outcome<Self> {
        let clock = Clock::from_id(memory.u32(at)?).ok_or(Errno::Inval)?;
        let timeout = memory.u64(at + 8)?;
        // How late it may be, which is up to the executor.
        memory.u64(at + 16)?;
        let flags = memory.u16(at + 24)?;
        if flags & !ABSOLUTE != 0 {
            return Err(Errno::Inval.into());
        }
        let wait = match clock {
            Clock::Processor => return Err(Errno::Inval.into()),
            _ if flags & ABSOLUTE == 0 => wait(timeout),
            Clock::Realtime => wait_until(timeout, realtime()),
            Clock::Monotonic => wait_until(timeout, process.monotonic()),
        };
        Ok(Self::Clock(now.checked_add(wait)))
    }
}
