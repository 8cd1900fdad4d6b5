//! Time as guests learn it, in steps: what they could measure in finer ones is what others leave behind in the
//! processor's caches. The clocks of components are here, in the place of Wasmtime's own; preview 1 has its own functions
//! on top of the same steps.
//!
//! By its own clocks, no guest waits for less time than it asked for: waits are rounded up where clocks are rounded down.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynPollable, Pollable,
        bindings::clocks::{
            monotonic_clock,
            wall_clock::{self, Datetime},
        },
        subscribe,
    },
};

use crate::instance::State;

/// What a guest's clocks go on by, in nanoseconds. Browsers give pages as much that share a process with others (W3C High
/// Resolution Time, "coarsen time"), and it is no loss to a call, which takes about as long.
pub(crate) const GRAIN_NANOS: u64 = 100_000;

/// What a guest's clock shows at this time, in nanoseconds.
pub(crate) fn shown(nanos: u64) -> u64 {
    nanos - nanos % GRAIN_NANOS
}

/// How long a guest waits that asks for so many nanoseconds.
pub(crate) fn wait(nanos: u64) -> Duration {
    Duration::from_nanos(nanos.checked_next_multiple_of(GRAIN_NANOS).unwrap_or(u64::MAX))
}

/// How long a guest waits at this time for its clock to show another, both in nanoseconds.
pub(crate) fn wait_until(when: u64, now: u64) -> Duration {
    wait(when).saturating_sub(Duration::from_nanos(now))
}

/// Nanoseconds since 1970.
pub(crate) fn realtime() -> u64 {
    nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Nanoseconds since a call began.
pub(crate) fn monotonic(start: Instant) -> u64 {
    nanos(start.elapsed())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Puts these clocks in the place of Wasmtime's own.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        Ok(datetime(shown(realtime())))
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        Ok(datetime(GRAIN_NANOS))
    }
}

fn datetime(nanos: u64) -> Datetime {
    let time = Duration::from_nanos(nanos);
    Datetime { seconds: time.as_secs(), nanoseconds: time.subsec_nanos() }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(shown(monotonic(self.start)))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(GRAIN_NANOS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe(wait_until(when, monotonic(self.start)))
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe(wait(nanos))
    }
}

impl State {
    fn subscribe(&mut self, wait: Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = match Instant::now().checked_add(wait) {
            _ if wait.is_zero() => Timer::Over { gave_way: false },
            Some(instant) => Timer::At(instant),
            None => Timer::Never,
        };
        let timer = self.table.push(timer)?;
        subscribe(&mut self.table, timer)
    }
}

/// What a component waits for.
enum Timer {
    /// It still lets others go first, once, so that a guest that asks in a loop holds up nobody.
    Over {
        gave_way: bool,
    },
    At(Instant),
    /// Too far ahead to be told.
    Never,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        match self {
            Self::Over { gave_way } => {
                if !std::mem::replace(gave_way, true) {
                    tokio::task::yield_now().await;
                }
            }
            Self::At(instant) => sleep_until(*instant).await,
            Self::Never => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Store;
    use wasmtime_wasi::{WasiCtxBuilder, p2::bindings::io::poll::HostPollable};

    use super::{monotonic_clock::Host as _, *};
    use crate::{
        engine::Engine,
        instance::{Limits, Usage, new_store},
        shape::Shape,
    };

    const MILLISECOND: u64 = 1_000_000;

    fn store() -> Store<State> {
        let engine =
            Engine::for_compiling(Shape { slots: 1, reservation_bytes: 4 << 30 }, false, None).unwrap();
        let limits = Limits { memory_bytes: 1 << 20, egress: runtime_egress::Policy::none() };
        let usage = Usage::new(&engine, &limits);
        new_store(&engine, &limits, Instant::now(), usage, None, WasiCtxBuilder::new())
    }

    #[test]
    fn clocks_are_rounded_down_and_waits_up() {
        for (exact, down, up) in [
            (0, 0, 0),
            (1, 0, 100_000),
            (99_999, 0, 100_000),
            (100_000, 100_000, 100_000),
            (100_001, 100_000, 200_000),
            (u64::MAX, u64::MAX - u64::MAX % 100_000, u64::MAX),
        ] {
            assert_eq!((shown(exact), wait(exact)), (down, Duration::from_nanos(up)), "{exact}");
        }
        for (when, now, nanos) in [
            (0, 0, 0),
            (100_000, 199_999, 0),
            // The clock shows 100,000, so that 100,001 is still to come.
            (100_001, 199_999, 1),
            (100_001, 100_001, 99_999),
            (1, u64::MAX, 0),
            (u64::MAX, 5, u64::MAX - 5),
        ] {
            assert_eq!(wait_until(when, now), Duration::from_nanos(nanos), "{when} {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_s_clocks_go_on_in_steps() {
        let mut store = store();
        let state = store.data_mut();
        assert_eq!(state.resolution().unwrap(), GRAIN_NANOS);
        let resolution = wall_clock::Host::resolution(state).unwrap();
        assert_eq!((resolution.seconds, u64::from(resolution.nanoseconds)), (0, GRAIN_NANOS));
        for (micros, shown) in [(0, 0), (99, 0), (1, 100_000), (99, 100_000), (1_000, 1_100_000)] {
            tokio::time::advance(Duration::from_micros(micros)).await;
            assert_eq!(state.now().unwrap(), shown);
        }
        let before = realtime();
        let now = wall_clock::Host::now(state).unwrap();
        assert_eq!(u64::from(now.nanoseconds) % GRAIN_NANOS, 0);
        let now = now.seconds * 1_000_000_000 + u64::from(now.nanoseconds);
        assert!((shown(before)..=realtime()).contains(&now), "{now}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_waits_no_less_than_it_asked_for() {
        let mut store = store();
        let state = store.data_mut();
        let begin = Instant::now();
        for nanos in [0, 1, MILLISECOND, MILLISECOND + 1, 1_234_567, 2 * MILLISECOND] {
            // Wherever between two steps it begins.
            tokio::time::advance(Duration::from_nanos(77_777)).await;
            let before = state.now().unwrap();
            let timer = state.subscribe_duration(nanos).unwrap();
            state.table.block(timer).await.unwrap();
            assert!(state.now().unwrap() >= before + nanos, "{nanos}");

            tokio::time::advance(Duration::from_nanos(33_333)).await;
            let when = state.now().unwrap() + nanos;
            let timer = state.subscribe_instant(when).unwrap();
            state.table.block(timer).await.unwrap();
            assert!(state.now().unwrap() >= when, "{nanos}");
        }
        assert!(begin.elapsed() < Duration::from_millis(30), "nor much more");
        for far in [u64::MAX, u64::MAX / 2] {
            let timer = state.subscribe_duration(far).unwrap();
            let waited = tokio::time::timeout(Duration::from_secs(3600), state.table.block(timer)).await;
            assert!(waited.is_err(), "{far}");
        }
    }
}
