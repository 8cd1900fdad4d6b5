use std::{net::SocketAddr, sync::Arc, time::Duration};

use gateway_server::{Config, Credentials, Gateway, Later};
use prometheus::Registry;
use runtime_api::{Error, Response, Result, VersionInfo, full};
use runtime_process::{ServeConfig, bind, serve, serve_on_thread};
use runtime_testing::FakeProvider;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A gateway, its metrics port, and the provider behind both.
pub(crate) struct Edge {
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    /// What the gateway is told to be shutting down by, while the test goes on talking to it.
    pub(crate) ending: CancellationToken,
    _running: DropGuard,
}

impl Edge {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    pub(crate) fn start_with(basic_auth: Option<Credentials>) -> Self {
        Self::start_beside(basic_auth, None)
    }

    /// With another server that logs are read from.
    pub(crate) fn start_beside(basic_auth: Option<Credentials>, logs_server: Option<String>) -> Self {
        Self::start_as(basic_auth, logs_server, None, |_, _| ()).0
    }

    /// With a queue, and what `beside` makes of the gateway and the registry of its metrics.
    pub(crate) fn start_as<T>(
        basic_auth: Option<Credentials>,
        logs_server: Option<String>,
        later: Option<Later>,
        beside: impl FnOnce(&Gateway, &Registry) -> T,
    ) -> (Self, T) {
        let configure = |config: Config| Config { basic_auth, logs_server, later, ..config };
        Self::start_configured(configure, beside)
    }

    /// With whatever `configure` makes of a plain configuration.
    pub(crate) fn start_configured<T>(
        configure: impl FnOnce(Config) -> Config,
        beside: impl FnOnce(&Gateway, &Registry) -> T,
    ) -> (Self, T) {
        // What talks TLS wants one to be chosen, and programs choose it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let provider = FakeProvider::new();
        let version = VersionInfo { sha: "abc123".into(), release: "0.1.0".into() };
        let ending = CancellationToken::new();
        let control = tokio::runtime::Handle::current();
        let config = configure(Config {
            basic_auth: None,
            version,
            shutdown: ending.clone(),
            control,
            scale_from_zero: None,
            logs_server: None,
            later: None,
            store: None,
        });
        let registry = Registry::new();
        let gateway = Gateway::new(config, provider.clone(), &registry).unwrap();
        let made = beside(&gateway, &registry);
        let (metrics, shutdown) = (gateway.metrics_endpoint(), CancellationToken::new());
        let listen = || {
            let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let ((address, for_users), (metrics_address, for_metrics)) = (listen(), listen());
        let config = ServeConfig::default();
        let service = move |_| metrics.clone();
        serve_on_thread("metrics", for_metrics, service, config, shutdown.clone()).unwrap();
        tokio::spawn(serve(for_users, move |peer| gateway.service(peer), config, shutdown.clone()));
        (Self { provider, address, metrics: metrics_address, ending, _running: shutdown.drop_guard() }, made)
    }

    /// Sends a request without a body, and reads the answer to its end.
    pub(crate) async fn request(&self, method: &str, target: &str, headers: &[&str]) -> Answer {
        self.send(method, target, headers, "").await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[]).await
    }

    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        send_to(self.address, method, target, headers, body).await
    }

    pub(crate) async fn metrics(&self, method: &str, target: &str) -> Answer {
        send_to(self.metrics, method, target, &[], "").await
    }

    /// Sends those lines as a request's head, and reads the answer until the connection is closed.
    pub(crate) async fn raw(&self, lines: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
        let mut text = String::new();
        let answer = timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await;
        answer.unwrap_or_else(|_| panic!("{lines:?} is not answered, or not closed")).unwrap();
        Answer::parse(&text)
    }

    /// Begins a request, whose head is followed by what the caller writes.
    pub(crate) async fn open(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: edge.example\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }
}

async fn send_to(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: edge.example\r\n");
    if !headers.iter().any(|header| header.to_lowercase().starts_with("connection:")) {
        head += "Connection: close\r\n";
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let answer = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    answer.unwrap_or_else(|_| panic!("{method} {target} is not answered")).unwrap();
    Answer::parse(&String::from_utf8(bytes).unwrap())
}

/// Reads until the text so far ends with `end`.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte));
    }
    text
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head: head.to_owned(), body: rest.to_owned() };
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = dechunked(rest);
        }
        answer
    }

    /// The values of a header, joined; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        let lines = self.head.lines().skip(1).map(|line| line.split_once(": ").unwrap());
        let values: Vec<_> =
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        values.join(" | ")
    }

    /// Status, code and text of one of the platform's own errors.
    pub(crate) fn error(&self) -> (u16, String, &str) {
        assert!(self.header("content-type").starts_with("text/plain"), "{}", self.head);
        (self.status, self.header("x-error-code"), self.body.strip_suffix('\n').unwrap())
    }
}

fn dechunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
}

/// An answer of 200 with that body.
pub(crate) fn ok(body: impl Into<bytes::Bytes>) -> Result<Response, Error> {
    Ok(http::Response::new(full(body)))
}
