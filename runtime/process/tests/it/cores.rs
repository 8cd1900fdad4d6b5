//! One port on several cores.

use std::{
    collections::BTreeMap, convert::Infallible, net::SocketAddr, num::NonZeroUsize, sync::Arc, thread,
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use runtime_process::{Cores, Drained, ServeConfig, bind_each, serve_on_cores};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::Client;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Answers with the name of the thread that serves, once the gate lets the call pass.
struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    cores: Cores,
    gate: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Server {
    fn start(cores: usize, config: ServeConfig) -> Self {
        let cores = NonZeroUsize::new(cores).unwrap();
        let listeners = bind_each(([127, 0, 0, 1], 0).into(), "--listen", cores).unwrap();
        let address = listeners.first().unwrap().local_addr().unwrap();
        let (gate, waiting, shutdown) =
            (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)), CancellationToken::new());
        let service_for = {
            let (gate, waiting) = (gate.clone(), waiting.clone());
            move |_| {
                let (gate, waiting) = (gate.clone(), waiting.clone());
                service_fn(move |_| {
                    let (gate, waiting) = (gate.clone(), waiting.clone());
                    async move {
                        waiting.add_permits(1);
                        gate.acquire().await.unwrap().forget();
                        let name = thread::current().name().unwrap().to_owned();
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(name + ";")))
                    }
                })
            }
        };
        let cores = serve_on_cores(listeners, service_for, config, shutdown.clone()).unwrap();
        Self { address, shutdown, cores, gate, waiting }
    }

    async fn connect(&self) -> Client {
        let mut client = Client(TcpStream::connect(self.address).await.unwrap());
        client.send(REQUEST).await;
        client
    }

    /// A connection, and the thread that it is served by.
    async fn called(&self) -> (Client, String) {
        self.gate.add_permits(1);
        let mut client = self.connect().await;
        let answer = client.read_until(";").await;
        (client, answer.trim_end_matches(';').rsplit("\r\n").next().unwrap().to_owned())
    }

    async fn drained(mut self) -> Drained {
        self.shutdown.cancel();
        let drained = self.cores.drained().await.unwrap();
        tokio::task::spawn_blocking(|| self.cores.end()).await.unwrap();
        drained
    }
}

#[tokio::test]
async fn connections_are_spread_evenly_over_the_cores() {
    let server = Server::start(4, ServeConfig::default());
    let (mut open, mut threads) = (Vec::new(), BTreeMap::new());
    for _ in 0..16 {
        let (client, thread) = server.called().await;
        open.push(client);
        *threads.entry(thread).or_insert(0) += 1;
    }
    let even = ["serve-0", "serve-1", "serve-2", "serve-3"].map(|name| (name.to_owned(), 4));
    assert_eq!(threads, even.into());
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test]
async fn a_connection_stays_with_its_core() {
    let server = Server::start(3, ServeConfig::default());
    let (mut client, thread) = server.called().await;
    for _ in 0..8 {
        server.gate.add_permits(1);
        client.send(REQUEST).await;
        assert!(client.read_until(";").await.ends_with(&format!("{thread};")));
    }
}

#[tokio::test]
async fn the_limit_is_for_all_cores_together_and_every_queue_is_served_at_shutdown() {
    let server = Server::start(4, ServeConfig { max_connections: 3, ..ServeConfig::default() });
    // The operating system puts so many into each of the queues, all but for once in a million runs of this.
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(server.connect().await);
    }
    server.waiting.acquire_many(3).await.unwrap().forget();
    assert_eq!(server.waiting.available_permits(), 0, "the fourth waits");

    server.shutdown.cancel();
    server.waiting.acquire_many(61).await.unwrap().forget();
    server.gate.add_permits(64);
    for client in &mut clients {
        let answer = client.read_to_end().await;
        assert!(answer.contains("Connection: close\r\n") && answer.ends_with(';'), "{answer:?}");
    }
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test]
async fn room_that_one_core_leaves_is_there_for_all() {
    let server = Server::start(4, ServeConfig { max_connections: 1, ..ServeConfig::default() });
    server.gate.add_permits(32);
    for _ in 0..32 {
        server.connect().await.read_until(";").await;
    }
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test]
async fn calls_that_take_too_long_are_cut_and_counted_on_all_cores() {
    let grace = std::time::Duration::from_millis(100);
    let server = Server::start(2, ServeConfig { grace, ..ServeConfig::default() });
    let clients = [server.connect().await, server.connect().await, server.connect().await];
    server.waiting.acquire_many(3).await.unwrap().forget();
    assert_eq!(server.drained().await, Drained { cut: 3 });
    for mut client in clients {
        assert_eq!(client.read_to_end().await, "");
    }
}

#[tokio::test]
async fn a_runtime_goes_on_until_it_is_told_to_end() {
    let (tail, shutdown) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
    let listeners = bind_each(([127, 0, 0, 1], 0).into(), "--listen", NonZeroUsize::MIN).unwrap();
    let address = listeners.first().unwrap().local_addr().unwrap();
    let (begin, ended) = (tail.clone(), Arc::new(Semaphore::new(0)));
    let service_for = {
        let ended = ended.clone();
        move |_| {
            let (begin, ended) = (begin.clone(), ended.clone());
            service_fn(move |_| {
                let (begin, ended) = (begin.clone(), ended.clone());
                tokio::spawn(async move {
                    begin.acquire().await.unwrap().forget();
                    ended.add_permits(1);
                });
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("begun\n"))) }
            })
        }
    };
    let mut cores = serve_on_cores(listeners, service_for, ServeConfig::default(), shutdown.clone()).unwrap();
    let mut client = Client(TcpStream::connect(address).await.unwrap());
    client.send(REQUEST).await;
    client.read_until("begun\n").await;

    shutdown.cancel();
    assert_eq!(cores.drained().await.unwrap(), Drained { cut: 0 });
    tail.add_permits(1);
    ended.acquire().await.unwrap().forget();
    tokio::task::spawn_blocking(|| cores.end()).await.unwrap();
}
