use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Drained, ServeConfig, serve::serve_share, share::Share};

/// Threads for what blocks: reading code, looking names up, large output. Many calls may wait for each at once.
const BLOCKING_THREADS: usize = 64;

/// After so many tasks, sockets are looked at and so are tasks that other threads woke. A task may run for as long as
/// a guest is let to, so it is not many.
const TASKS_IN_A_ROW: u32 = 8;

/// A port that is served by a runtime on each core.
pub struct Cores {
    drained: Vec<oneshot::Receiver<io::Result<Drained>>>,
    threads: Vec<JoinHandle<()>>,
    release: DropGuard,
}

/// Serves a port as [`serve`](crate::serve) does, each of its listeners by a thread and a runtime of its own.
///
/// A connection stays with the thread that serves the fewest when it is accepted. `max_connections` is for all
/// together. When one thread ends, all do.
///
/// # Errors
/// A thread or its runtime cannot be started.
pub fn serve_on_cores<M, S, B>(
    listeners: Vec<TcpListener>,
    service_for: M,
    config: ServeConfig,
    shutdown: CancellationToken,
) -> io::Result<Cores>
where
    M: Fn(SocketAddr) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (service_for, release) = (Arc::new(service_for), CancellationToken::new());
    let mut cores = Cores { drained: Vec::new(), threads: Vec::new(), release: release.clone().drop_guard() };
    let unless_all_start = shutdown.clone().drop_guard();
    let shares = Share::among(listeners.len(), config.max_connections);
    for (number, (listener, share)) in listeners.into_iter().zip(shares).enumerate() {
        let (tell, drained) = oneshot::channel();
        let (service_for, shutdown, release) = (service_for.clone(), shutdown.clone(), release.clone());
        let serving = async move {
            let all_end_with_one = shutdown.clone().drop_guard();
            let outcome = serve_share(listener, share, &*service_for, config, shutdown).await;
            drop(all_end_with_one);
            // Whoever does not wait for the outcome does not need it.
            drop(tell.send(outcome));
            release.cancelled().await;
        };
        let (started, starts) = mpsc::sync_channel(1);
        // The runtime begins on its own thread, since it must not be dropped on one of another runtime.
        let thread = move || {
            let runtime = match runtime(number) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            drop(started.send(Ok(())));
            runtime.block_on(serving);
            runtime.shutdown_background();
        };
        cores.threads.push(thread::Builder::new().name(format!("serve-{number}")).spawn(thread)?);
        starts.recv().map_err(io::Error::other)??;
        cores.drained.push(drained);
    }
    unless_all_start.disarm();
    Ok(cores)
}

fn runtime(number: usize) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name(format!("blocking-{number}"))
        .event_interval(TASKS_IN_A_ROW)
        .global_queue_interval(TASKS_IN_A_ROW)
        .build()
}

impl Cores {
    /// Waits until no connection is left. The runtimes go on, and with them what calls have left behind there.
    ///
    /// # Errors
    /// A listener could not be registered with its runtime, or a thread panicked.
    pub async fn drained(&mut self) -> io::Result<Drained> {
        let mut cut = 0;
        for core in self.drained.drain(..) {
            cut += core.await.map_err(|_| io::Error::other("a serving thread panicked"))??.cut;
        }
        Ok(Drained { cut })
    }

    /// Ends the runtimes; what still runs there is dropped. Blocks until that is done, which it is at once after
    /// [`drained`](Self::drained).
    pub fn end(self) {
        drop(self.release);
        for thread in self.threads {
            // A panic was told by `drained`.
            drop(thread.join());
        }
    }
}
