//! Time and chance.

use rand::Rng;
use wasmtime::{Caller, Linker};

use super::{
    PREVIEW1, Process,
    abi::{Errno, Outcome, case, trap},
    enter,
};
use crate::{
    clocks::{self, GRAIN_NANOS, shown},
    instance::MAX_RANDOM_BYTES,
};

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
        enter(guest, |_, memory| match Clock::argument(id)? {
            Clock::Realtime | Clock::Monotonic => memory.put_u64(at as usize, GRAIN_NANOS),
            Clock::Processor => Err(Errno::Badf.into()),
        })
    })?;
    linker.func_wrap(PREVIEW1, "clock_time_get", |guest: Guest<'_>, id: u32, _: u64, at: u32| {
        enter(guest, |process, memory| {
            let now = match Clock::argument(id)? {
                Clock::Realtime => clocks::realtime(),
                Clock::Monotonic => process.monotonic(),
                Clock::Processor => return Err(Errno::Badf.into()),
            };
            memory.put_u64(at as usize, shown(now))
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

impl Process {
    /// Nanoseconds since the call began, exactly.
    pub(super) fn monotonic(&self) -> u64 {
        clocks::monotonic(self.start)
    }
}
