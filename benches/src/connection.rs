use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;

use crate::answer::Answer;

/// No call of a benchmark takes longer, a deploy that compiles JavaScript's engine included.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a connection reads at once.
const READ_BYTES: usize = 16 << 10;

/// One HTTP/1.1 connection, kept alive, for one call at a time. It does little, since it runs on the server's cores.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Makes a call and gives the body of its answer. Every answer but a 2xx is an error.
    pub(crate) fn call(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.send(request)?;
        let answer = loop {
            if let Some(answer) = self.receive()? {
                break answer;
            }
        };
        if !(200..300).contains(&answer.status) {
            bail!("status {}: {}", answer.status, self.body(&answer)?);
        }
        answer.body(&self.received)
    }

    /// What the answer says, for people to read.
    pub(crate) fn body(&self, answer: &Answer) -> Result<String> {
        Ok(String::from_utf8_lossy(&answer.body(&self.received)?).trim_end().into())
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.received.clear();
        self.stream.write_all(request).context("a request cannot be sent")
    }

    /// Reads once, and gives the answer if it is whole now.
    pub(crate) fn receive(&mut self) -> Result<Option<Answer>> {
        self.received.reserve(READ_BYTES);
        if rustix::io::read(&self.stream, spare_capacity(&mut self.received)).context("no answer")? == 0 {
            bail!("the server closed the connection before its answer was whole");
        }
        Answer::parse(&self.received)
    }
}

/// A request that keeps its connection.
pub(crate) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    if method != "GET" {
        request.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}
