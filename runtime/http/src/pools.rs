use std::{num::NonZeroUsize, sync::OnceLock, time::Duration};

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use runtime_api::Body;
use tokio::runtime::{Handle, Id};

/// Machines that are up answer within one retransmission (`OpenFaaS`).
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Providers of the `OpenFaaS` SDK close connections that nobody has used for ten seconds.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Those of a function's answer, at most 100, and those that servers add.
const MAX_HEADERS: usize = 128;

/// Connections, of each runtime its own: one is driven by the runtime that it was made on, so that whoever used it from
/// another would wait for that, and for whatever keeps that busy.
pub(crate) struct Pools {
    own: Box<[OnceLock<(Id, HttpClient)>]>,
    /// Of runtimes that came when all of those had one.
    shared: HttpClient,
    idle_each: usize,
}

type HttpClient = Client<HttpConnector, Body>;

impl Pools {
    /// For so many runtimes; `max_idle` connections are kept in all that nobody uses, but one for each at the least.
    pub(crate) fn new(runtimes: NonZeroUsize, max_idle: usize) -> Self {
        let idle_each = (max_idle / runtimes.saturating_add(1)).max(1);
        let own = (0..runtimes.get()).map(|_| OnceLock::new()).collect();
        Self { own, shared: client(idle_each), idle_each }
    }

    /// Those of the runtime that asks. Takes no lock once it has some.
    pub(crate) fn here(&self) -> &HttpClient {
        let Ok(here) = Handle::try_current().map(|runtime| runtime.id()) else { return &self.shared };
        let mut taken = self.own.iter().map(|own| own.get_or_init(|| (here, client(self.idle_each))));
        taken.find(|(runtime, _)| *runtime == here).map_or(&self.shared, |(_, client)| client)
    }
}

fn client(max_idle: usize) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIME));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(max_idle)
        .http1_max_headers(MAX_HEADERS)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use std::{ptr, thread};

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn each_runtime_has_its_own_and_those_beyond_share() {
        let pools = Pools::new(NonZeroUsize::new(2).unwrap(), 9);
        assert_eq!(pools.idle_each, 3);
        // Runtimes that are there at once, so that each has an id of its own.
        let runtimes = [(); 4].map(|()| Builder::new_current_thread().build().unwrap());
        let on = |runtime: &tokio::runtime::Runtime| {
            runtime.block_on(async { ptr::from_ref(pools.here()).addr() })
        };
        let found: Vec<usize> = runtimes.iter().map(on).collect();
        let again = thread::scope(|scope| {
            let asked = runtimes.iter().map(|runtime| scope.spawn(move || on(runtime)));
            asked.collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(found, again, "a runtime keeps its own, on whatever thread");
        let shared = ptr::from_ref(&pools.shared).addr();
        assert!(found[0] != found[1] && !found[..2].contains(&shared));
        assert_eq!(found[2..], [shared, shared]);
    }
}
