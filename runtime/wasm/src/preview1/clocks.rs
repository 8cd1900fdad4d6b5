//! Time and chance.

use std::time::SystemTime;

use rand::Rng;
use rustix::time::{ClockId, clock_getres};
use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, Outcome, case, trap},
    enter,
};
use crate::instance::MAX_RANDOM_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Realtime,
    Monotonic,
    /// Of the process or of the thread, which nobody measures here.
    Processor,
}

impl Clock {
    pub(super) fn from_id(id: u32) -> Option<Self> {
        match id {
            0 => Some(Self::Realtime),
            1 => Some(Self::Monotonic),
            2 | 3 => Some(Self::Processor),
            _ => None,
        }
    }

    fn argument(id: u32) -> Outcome<Self> {
        case(id, 4)?;
        Self::from_id(id).ok_or_else(|| trap("no such clock"))
    }
}

pub(super) fn link(linker: &mut Linker<Process>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, Process>;
    linker.func_wrap(PREVIEW1, "clock_res_get", |guest: Guest<'_>, id: u32, at: u32| {
        enter(guest, |_, memory| {
            let clock = match Clock::argument(id)? {
                Clock::Realtime => ClockId::Realtime,
                Clock::Monotonic => ClockId::Monotonic,
                Clock::Processor => return Err(Errno::Badf.into()),
            };
            let resolution = clock_getres(clock);
            let nanos = resolution.tv_sec.saturating_mul(1_000_000_000).saturating_add(resolution.tv_nsec);
            memory.put_u64(at as usize, nanos.unsigned_abs())
        })
    })?;
    linker.func_wrap(PREVIEW1, "clock_time_get", |guest: Guest<'_>, id: u32, _: u64, at: u32| {
        enter(guest, |process, memory| {
            let now = match Clock::argument(id)? {
                Clock::Realtime => realtime(),
                Clock::Monotonic => process.monotonic(),
                Clock::Processor => return Err(Errno::Badf.into()),
            };
            memory.put_u64(at as usize, now)
        })
    })?;
    linker.func_wrap(PREVIEW1, "random_get", |guest: Guest<'_>, at: u32, length: u32| {
        enter(guest, |_, memory| {
            if u64::from(length) > MAX_RANDOM_BYTES {
                return Err(trap(format!("{length} random bytes are more than {MAX_RANDOM_BYTES}")));
            }
            if length > 0 {
                rand::rng().fill_bytes(memory.bytes_mut(at as usize, length as usize)?);
            }
            Ok(())
        })
    })?;
    Ok(())
}

/// Nanoseconds since 1970.
pub(super) fn realtime() -> u64 {
    nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

impl Process {
    /// Nanoseconds since the call began.
    pub(super) fn monotonic(&self) -> u64 {
        nanos(self.start.elapsed())
    }
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
