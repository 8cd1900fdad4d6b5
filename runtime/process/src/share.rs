use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Semaphore, mpsc};

use crate::accept::Accepted;

/// Connections on their way to another core; beyond that, whoever accepted one serves it.
const HANDED: usize = 64;

/// One core's part in serving: what it accepts goes to whoever serves the fewest connections. The operating system
/// spreads them by chance, and of two connections one core has both half of the time.
pub(crate) struct Share {
    pub(crate) room: Arc<Semaphore>,
    pub(crate) handed: mpsc::Receiver<Placed>,
    load: Arc<AtomicUsize>,
    others: Vec<Core>,
}

/// What the others know of a core.
#[derive(Clone)]
struct Core {
    load: Arc<AtomicUsize>,
    hand: mpsc::Sender<Placed>,
}

/// A connection, counted where it is served.
pub(crate) struct Placed {
    pub(crate) accepted: Accepted,
    pub(crate) load: Load,
}

/// Counts a connection until it is dropped.
pub(crate) struct Load(Arc<AtomicUsize>);

impl Load {
    fn on(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Share {
    /// All of it.
    pub(crate) fn alone(max_connections: usize) -> Self {
        let (_, handed) = mpsc::channel(1);
        let room = Arc::new(Semaphore::new(max_connections));
        Self { room, handed, load: Arc::default(), others: Vec::new() }
    }

    /// The parts of that many cores, with room for so many connections in all.
    pub(crate) fn among(cores: usize, max_connections: usize) -> Vec<Self> {
        let room = Arc::new(Semaphore::new(max_connections));
        let (cores, handed): (Vec<_>, Vec<_>) = iter::repeat_with(|| {
            let (hand, handed) = mpsc::channel(HANDED);
            (Core { load: Arc::default(), hand }, handed)
        })
        .take(cores)
        .unzip();
        let share = |(number, handed): (usize, _)| {
            let mut others = cores.clone();
            let own = others.swap_remove(number);
            Self { room: Arc::clone(&room), handed, load: own.load, others }
        };
        handed.into_iter().enumerate().map(share).collect()
    }

    /// Hands a connection to the core that serves the fewest; back if that is this one, or hardly fewer than here.
    pub(crate) fn place(&self, accepted: Accepted) -> Option<Placed> {
        let fewest = self.others.iter().min_by_key(|core| core.load.load(Relaxed));
        let Some(core) = fewest.filter(|core| is_unfair(self.load.load(Relaxed), core.load.load(Relaxed)))
        else {
            return Some(self.keep(accepted));
        };
        let refused = core.hand.try_send(Placed { accepted, load: Load::on(&core.load) }).err()?;
        Some(self.keep(refused.into_inner().accepted))
    }

    pub(crate) fn keep(&self, accepted: Accepted) -> Placed {
        Placed { accepted, load: Load::on(&self.load) }
    }

    /// Nothing more is handed on; once no core does, `handed` is at its end.
    pub(crate) fn leave(&mut self) {
        self.others.clear();
    }
}

/// With few connections one more or less is much; with many it is not worth waking another core.
fn is_unfair(here: usize, there: usize) -> bool {
    here > there + there / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_connections_each_counts_and_of_many_some_do_not() {
        assert!(is_unfair(1, 0) && is_unfair(8, 7) && is_unfair(120, 100));
        assert!(!is_unfair(0, 0) && !is_unfair(7, 8) && !is_unfair(9, 8) && !is_unfair(110, 100));
    }
}
