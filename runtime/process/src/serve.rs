use std::{
    convert::Infallible,
    error::Error,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::connection::Connection;

/// How long to wait after the machine could not accept, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of one listener.
#[derive(Clone, Debug)]
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
    /// How many connections are open at once; more wait in the operating system's queue.
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
/// runtime, so a listener may be served on each core by a runtime of its own.
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
    let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
    let start = |stream, peer, permit: Option<OwnedSemaphorePermit>| {
        let (config, shutdown, cut) = (config.clone(), shutdown.clone(), cut.clone());
        let running = Connection { stream, config, shutdown, cut }.run(service_for(peer));
        connections.spawn(async move {
            running.await;
            drop(permit);
        });
    };
    let mut acceptor = Acceptor::new(listener, config.max_connections)?;
    loop {
        select! {
            biased;
            () = shutdown.cancelled() => break,
            (stream, peer, permit) = acceptor.next() => start(stream, peer, permit),
        }
    }
    acceptor.drain_queue(|stream, peer| start(stream, peer, None));
    connections.close();
    let in_time = timeout(config.grace, connections.wait()).await.is_ok();
    let drained = Drained { cut: if in_time { 0 } else { connections.len() } };
    cut.cancel();
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

struct Acceptor {
    listener: tokio::net::TcpListener,
    room: Arc<Semaphore>,
    failing: bool,
}

impl Acceptor {
    fn new(listener: TcpListener, max_connections: usize) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Self { listener, room: Arc::new(Semaphore::new(max_connections)), failing: false })
    }

    /// The next connection that there is room for. A failure passes, or at least must not end the server: it is
    /// logged once, and tried again.
    async fn next(&mut self) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if self.failing {
                        self.failing = false;
                        info!("accepting connections again");
                    }
                    return (stream, peer, permit);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !self.failing {
                        self.failing = true;
                        error!(%error, "cannot accept connections; raise the limit of open files if that is it");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the listener, after taking what the operating system has accepted and we have not: those clients
    /// believe that they are connected.
    fn drain_queue(self, start: impl Fn(TcpStream, SocketAddr)) {
        let next = |listener: &TcpListener| {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            io::Result::Ok((TcpStream::from_std(stream)?, peer))
        };
        let drained = self.listener.into_std().and_then(|listener| {
            loop {
                let (stream, peer) = next(&listener)?;
                start(stream, peer);
            }
        });
        match drained {
            Err::<(), _>(error) if error.kind() != ErrorKind::WouldBlock => {
                error!(%error, "cannot take the connections that were waiting at shutdown");
            }
            _ => {}
        }
    }
}
