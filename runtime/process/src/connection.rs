use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::Builder,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    select,
    time::{Instant, sleep},
};
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
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    {
        if let Err(error) = self.prepare_socket() {
            debug!(%error, "connection was closed before its first byte");
            return;
        }
        let progress = Arc::new(Progress::default());
        let observer = Arc::clone(&progress);
        let observed = service_fn(move |request| {
            observer.called.store(true, Relaxed);
            let (answer, observer) = (service.call(request), Arc::clone(&observer));
            async move {
                let mut response = answer.await?;
                if observer.draining.load(Relaxed) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).title_case_headers(true).max_buf_size(MAX_HEAD_BYTES);
        builder.max_header_size(MAX_HEAD_BYTES);
        builder.header_read_timeout(self.config.idle_timeout);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(self.stream), observed));
        let mut timer = pin!(sleep(self.config.head_timeout));
        let mut draining = false;
        loop {
            select! {
                biased;
                result = connection.as_mut() => {
                    return result.unwrap_or_else(|error| debug!(%error, "connection failed"));
                }
                () = self.cut.cancelled() => return,
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    progress.draining.store(true, Relaxed);
                    timer.as_mut().reset(Instant::now() + LINGER);
                }
                () = timer.as_mut(), if !timer.is_elapsed() => {
                    if draining {
                        connection.as_mut().graceful_shutdown();
                    } else if !progress.called.load(Relaxed) {
                        return debug!("connection sent no request in time");
                    }
                }
            }
        }
    }

    fn prepare_socket(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        // The kernel closes a connection whose peer takes nothing for that long, even one that answers probes.
        SockRef::from(&self.stream).set_tcp_user_timeout(Some(self.config.stall_timeout))
    }
}
