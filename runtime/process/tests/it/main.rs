//! Serving and draining over real sockets.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod cores;
mod descriptors;

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::{body::Incoming, service::service_fn};
use runtime_process::{Drained, ServeConfig, bind, serve, serve_on_thread};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// A body of pieces that the test sends one by one.
struct Pieces(mpsc::UnboundedReceiver<&'static str>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|text| Ok(Frame::data(text.into()))))
    }
}

/// A server whose `/stream` sends what the test sends, whose `/hang` never answers, and that else answers at once.
struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<Drained>>,
    pieces: mpsc::UnboundedSender<mpsc::UnboundedSender<&'static str>>,
    streams: mpsc::UnboundedReceiver<mpsc::UnboundedSender<&'static str>>,
    called: Arc<Notify>,
    dropped: Arc<Notify>,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Server {
    fn start(config: ServeConfig) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
        let address = listener.local_addr().unwrap();
        let (pieces, streams) = mpsc::unbounded_channel();
        let (called, dropped, shutdown) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
        let service = {
            let (pieces, called, dropped) = (pieces.clone(), called.clone(), dropped.clone());
            move |peer: SocketAddr| {
                assert!(peer.ip().is_loopback());
                let (pieces, called, dropped) = (pieces.clone(), called.clone(), dropped.clone());
                service_fn(move |request: Request<Incoming>| {
                    let (pieces, called, dropped) = (pieces.clone(), called.clone(), dropped.clone());
                    async move {
                        called.notify_one();
                        let (send, body) = mpsc::unbounded_channel();
                        match request.uri().path() {
                            "/stream" => pieces.send(send).unwrap(),
                            "/hang" => {
                                let _noticed = NotifyOnDrop(dropped);
                                pending::<()>().await;
                            }
                            _ => send.send("hello").unwrap(),
                        }
                        Ok::<_, Infallible>(
                            Response::builder().header("x-call-id", "1").body(Pieces(body)).unwrap(),
                        )
                    }
                })
            }
        };
        let running = tokio::spawn(serve(listener, service, config, shutdown.clone()));
        Self { address, shutdown, running, pieces, streams, called, dropped }
    }

    async fn get(&self, path: &str) -> Client {
        let mut client = self.connect().await;
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        client
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    async fn drained(self) -> Drained {
        drop((self.pieces, self.streams));
        self.running.await.unwrap().unwrap()
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text.push(char::from(
                self.0.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}")),
            ));
        }
        text
    }

    async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

#[tokio::test]
async fn a_connection_serves_one_call_after_another() {
    let server = Server::start(ServeConfig::default());
    let mut client = server.get("/").await;
    let answer = client.read_until("0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nX-Call-Id: 1\r\n"), "{answer}");
    client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.read_until("0\r\n\r\n").await;
}

#[tokio::test]
async fn a_stream_is_finished_while_draining() {
    let mut server = Server::start(ServeConfig::default());
    let mut client = server.get("/stream").await;
    let stream = server.streams.recv().await.unwrap();
    stream.send("one").unwrap();
    client.read_until("one\r\n").await;

    server.shutdown.cancel();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.send("two").unwrap();
    client.read_until("two\r\n").await;
    drop(stream);
    assert_eq!(client.read_to_end().await, "0\r\n\r\n");
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_grace_period_is_cut_and_counted() {
    let server = Server::start(ServeConfig { grace: Duration::from_secs(5), ..ServeConfig::default() });
    let mut hanging = server.get("/hang").await;
    server.called.notified().await;
    let dropped = server.dropped.clone();

    let begun = Instant::now();
    server.shutdown.cancel();
    assert_eq!(server.drained().await, Drained { cut: 1 });
    assert_eq!(begun.elapsed().as_secs(), 5);
    dropped.notified().await;
    assert_eq!(hanging.read_to_end().await, "");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let server = Server::start(ServeConfig::default());
    let hanging = server.get("/hang").await;
    server.called.notified().await;
    drop(hanging);
    server.dropped.notified().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_to_an_idle_connection_is_answered_while_draining() {
    let server = Server::start(ServeConfig::default());
    let mut idle = server.get("/").await;
    idle.read_until("0\r\n\r\n").await;
    let mut fresh = server.connect().await;

    server.shutdown.cancel();
    for client in [&mut idle, &mut fresh] {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let answer = client.read_to_end().await;
        assert!(answer.contains("Connection: close\r\n") && answer.ends_with("0\r\n\r\n"), "{answer:?}");
    }
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_busy_client_loses_a_request() {
    let server = Server::start(ServeConfig::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut client = server.connect().await;
        clients.spawn(async move {
            for answered in 1.. {
                client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                if client.read_until("0\r\n\r\n").await.contains("Connection: close\r\n") {
                    return answered;
                }
            }
            0
        });
    }
    for _ in 0..1000 {
        server.called.notified().await;
    }
    server.shutdown.cancel();
    let answered: usize = clients.join_all().await.into_iter().sum();
    assert!(answered >= 1000, "{answered}");
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test(start_paused = true)]
async fn idle_connections_do_not_hold_up_the_end() {
    let server = Server::start(ServeConfig::default());
    let mut idle = server.get("/").await;
    idle.read_until("0\r\n\r\n").await;
    let mut silent = server.connect().await;

    let begun = Instant::now();
    server.shutdown.cancel();
    assert_eq!(server.drained().await, Drained { cut: 0 });
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(idle.read_to_end().await + &silent.read_to_end().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_not_waited_for() {
    let server = Server::start(ServeConfig::default());
    let mut slow = server.connect().await;
    slow.send("GET / HTTP/1.1\r\nho").await;
    let begun = Instant::now();
    assert_eq!(slow.read_to_end().await, "");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_longer_than_a_balancer_keeps_it() {
    let server = Server::start(ServeConfig::default());
    let mut idle = server.get("/").await;
    idle.read_until("0\r\n\r\n").await;
    let begun = Instant::now();
    assert_eq!(idle.read_to_end().await, "");
    assert_eq!(begun.elapsed().as_secs(), 75);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let stall_timeout = Duration::from_millis(300);
    let mut server = Server::start(ServeConfig { stall_timeout, ..ServeConfig::default() });
    let _never_reads = server.get("/stream").await;
    let stream = server.streams.recv().await.unwrap();
    let piece: &'static str = "x".repeat(1 << 20).leak();
    for _ in 0..64 {
        stream.send(piece).unwrap();
    }
    stream.closed().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_even_while_draining() {
    let mut server = Server::start(ServeConfig { max_connections: 1, ..ServeConfig::default() });
    let mut first = server.get("/stream").await;
    let stream = server.streams.recv().await.unwrap();
    stream.send("one").unwrap();
    first.read_until("one\r\n").await;
    let mut waiting = server.get("/").await;

    server.shutdown.cancel();
    let answer = waiting.read_to_end().await;
    assert!(answer.contains("Connection: close\r\n") && answer.ends_with("hello\r\n0\r\n\r\n"), "{answer:?}");
    drop(stream);
    assert_eq!(first.read_to_end().await, "0\r\n\r\n");
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let server = Server::start(ServeConfig::default());
    let many = "a: b\r\n".repeat(101);
    let long = format!("a: {}\r\n", "b".repeat(64 << 10));
    for (head, status) in
        [(many.as_str(), "431"), (&long, "431"), ("a b: c\r\n", "400"), ("content-length: +5\r\n", "400")]
    {
        let mut client = server.connect().await;
        client.send(&format!("GET / HTTP/1.1\r\nhost: x\r\n{head}\r\n")).await;
        let answer = client.read_until("\r\n").await;
        assert!(answer.contains(status), "{answer:?}");
    }
}

#[tokio::test]
async fn a_thread_of_its_own_serves_and_drains() {
    let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let service = |_| {
        service_fn(|_| async {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            Ok::<_, Infallible>(Response::new(http_body_util::Full::<Bytes>::from(name)))
        })
    };
    let thread =
        serve_on_thread("metrics", listener, service, ServeConfig::default(), shutdown.clone()).unwrap();
    let mut client = Client(TcpStream::connect(address).await.unwrap());
    client.send("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(client.read_to_end().await.ends_with("\r\n\r\nmetrics"));
    shutdown.cancel();
    let drained = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
    assert_eq!(drained.unwrap().unwrap(), Drained { cut: 0 });
}
