use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    thread::{self, JoinHandle},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use tokio::{runtime::Builder, select, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept::{Accepted, Acceptor},
    connection::Connection,
    share::{Placed, Share},
};

/// The limits of one port.
#[derive(Clone, Copy, Debug)]
pub struct ServeConfig {
    /// How long calls in flight may take once draining.
    pub grace: Duration,
    /// How long a new connection may take to send its first request's head.
    pub head_timeout: Duration,
    /// How long a connection may stay without a call. Longer than the minute that load balancers keep theirs, or
    /// they would send requests into closing connections.
    pub idle_timeout: Duration,
    /// How long a client may take none of what is sent to it.
    pub stall_timeout: Duration,
    /// How many connections are served at once; more wait, in the operating system's queue but for one a listener.
    pub max_connections: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            max_connections: 10_000,
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut, call and all, because the grace period was over.
    pub cut: usize,
}

/// Serves HTTP/1.1 until `shutdown`, then finishes the calls in flight and those already in the accept queue.
///
/// `service_for` makes each connection's service, given the peer's address. Connections are tasks of the current
/// runtime.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub async fn serve<M, S, B>(
    listener: TcpListener,
    service_for: M,
    config: ServeConfig,
    shutdown: CancellationToken,
) -> io::Result<Drained>
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let share = Share::alone(config.max_connections);
    serve_share(listener, share, &service_for, config, shutdown).await
}

/// Serves what one listener accepts and what other cores hand over.
pub(crate) async fn serve_share<M, S, B>(
    listener: TcpListener,
    mut share: Share,
    service_for: &M,
    config: ServeConfig,
    shutdown: CancellationToken,
) -> io::Result<Drained>
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // The core's own, so that connections of different cores do not meet at one lock.
    let (shutdown, cut) = (shutdown.child_token(), CancellationToken::new());
    let connections = TaskTracker::new();
    let start = |Placed { accepted, load }| {
        let Accepted { stream, peer, permit } = accepted;
        let (shutdown, cut) = (shutdown.clone(), cut.clone());
        let running = Connection { stream, config, shutdown, cut }.run(service_for(peer));
        connections.spawn(async move {
            running.await;
            drop((permit, load));
        });
    };
    let mut acceptor = Acceptor::new(listener, share.room.clone())?;
    loop {
        select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(placed) = share.handed.recv() => start(placed),
            accepted = acceptor.next() => {
                if let Some(placed) = share.place(accepted) {
                    start(placed);
                }
            }
        }
    }
    acceptor.drain_queue(|accepted| start(share.keep(accepted)));
    share.leave();
    let to_the_last = async {
        while let Some(placed) = share.handed.recv().await {
            start(placed);
        }
        connections.close();
        connections.wait().await;
    };
    let in_time = timeout(config.grace, to_the_last).await.is_ok();
    let drained = Drained { cut: if in_time { 0 } else { connections.len() } };
    cut.cancel();
    connections.close();
    connections.wait().await;
    Ok(drained)
}

/// Serves as [`serve`] does on a thread and a runtime of its own, which work done elsewhere cannot hold up.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn serve_on_thread<M, S, B>(
    name: &str,
    listener: TcpListener,
    service_for: M,
    config: ServeConfig,
    shutdown: CancellationToken,
) -> io::Result<JoinHandle<io::Result<Drained>>>
where
    M: Fn(SocketAddr) -> S + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let serving = move || runtime.block_on(serve(listener, service_for, config, shutdown));
    thread::Builder::new().name(name.to_owned()).spawn(serving)
}
