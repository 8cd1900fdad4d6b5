use std::{
    convert::Infallible,
    error::Error,
    future::pending,
    io,
    net::TcpStream,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{HeaderValue, Request, Response, header::CONNECTION};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::Builder,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::ServeConfig;

/// The largest request head (answered 431 beyond), and the most that is buffered of a body. `OpenFaaS` takes heads
/// of 1 MiB; clients send a few KiB, and ten thousand connections must fit into memory.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long an idle connection stays open once draining, so that a request already under way is answered, with
/// `Connection: close`, instead of meeting a closed connection.
const LINGER: Duration = Duration::from_millis(500);

/// One connection, from its first byte until it is closed, drained or cut.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) config: ServeConfig,
    pub(crate) shutdown: CancellationToken,
    pub(crate) cut: CancellationToken,
}

/// How far a connection is, as far as its client has no say.
#[derive(Clone, Copy)]
enum Stage {
    /// The first request's head is on its way.
    Fresh,
    Serving,
    Draining,
    /// To be closed once it is idle.
    Closing,
    Cut,
}

/// What the connection and its calls tell each other.
#[derive(Default)]
struct Progress {
    called: AtomicBool,
    draining: AtomicBool,
}

impl Connection {
    /// Dropping this drops the call in flight, and that cancels it.
    pub(crate) async fn run<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    {
        let Self { stream, config, shutdown, cut } = self;
        let stream = match prepare(stream, &config) {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "connection was closed before its first byte"),
        };
        let progress = Arc::new(Progress::default());
        let mut connection =
            pin!(http(&config).serve_connection(TokioIo::new(stream), observed(service, &progress)));
        // It is woken for each of its calls. Here only what woke it is looked at, which is hardly ever this.
        let next = |stage: Stage| stage.next(config.head_timeout, &shutdown, &cut);
        let mut stages = FuturesUnordered::from_iter([next(Stage::Fresh)]);
        loop {
            let stage = select! {
                biased;
                Some(stage) = stages.next() => stage,
                result = connection.as_mut() => {
                    return result.unwrap_or_else(|error| debug!(%error, "connection failed"));
                }
            };
            match stage {
                Stage::Fresh => {}
                Stage::Serving if progress.called.load(Relaxed) => {}
                Stage::Serving => return debug!("connection sent no request in time"),
                Stage::Draining => progress.draining.store(true, Relaxed),
                Stage::Closing => connection.as_mut().graceful_shutdown(),
                Stage::Cut => return,
            }
            stages.push(next(stage));
        }
    }
}

impl Stage {
    /// The stage after this, once it is reached.
    async fn next(
        self,
        head_timeout: Duration,
        shutdown: &CancellationToken,
        cut: &CancellationToken,
    ) -> Self {
        let later = async {
            match self {
                Self::Fresh => select! {
                    () = shutdown.cancelled() => Self::Draining,
                    () = sleep(head_timeout) => Self::Serving,
                },
                Self::Serving => shutdown.cancelled().map(|()| Self::Draining).await,
                Self::Draining => sleep(LINGER).map(|()| Self::Closing).await,
                Self::Closing | Self::Cut => pending().await,
            }
        };
        select! {
            () = cut.cancelled() => Self::Cut,
            stage = later => stage,
        }
    }
}

fn prepare(stream: TcpStream, config: &ServeConfig) -> io::Result<tokio::net::TcpStream> {
    stream.set_nodelay(true)?;
    // The kernel closes a connection whose peer takes nothing for that long, even one that answers probes.
    SockRef::from(&stream).set_tcp_user_timeout(Some(config.stall_timeout))?;
    tokio::net::TcpStream::from_std(stream)
}

fn http(config: &ServeConfig) -> Builder {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).title_case_headers(true).max_buf_size(MAX_HEAD_BYTES);
    builder.max_header_size(MAX_HEAD_BYTES);
    builder.header_read_timeout(config.idle_timeout);
    builder
}

/// Notices the first call, and tells a client that the connection ends with its answer.
fn observed<S, B>(
    service: S,
    progress: &Arc<Progress>,
) -> impl Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    B: Body,
{
    let progress = Arc::clone(progress);
    service_fn(move |request| {
        progress.called.store(true, Relaxed);
        let progress = Arc::clone(&progress);
        service.call(request).map(move |answer| {
            let Ok(mut response) = answer;
            if progress.draining.load(Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    })
}
