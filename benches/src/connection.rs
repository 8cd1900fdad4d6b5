use std::{io::Write, net::SocketAddr, str, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// No call of a benchmark takes longer, a deploy that compiles included.
const PATIENCE: Duration = Duration::from_secs(60);
/// No answer of a benchmark is longer.
const LONGEST: usize = 1 << 20;

/// One HTTP/1.1 connection, kept alive, for one call at a time. It does little, since it runs on the server's cores.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// The body of the last answer.
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(16 << 10), body: Vec::new() })
    }

    /// Sends a request, as [`request`] makes it. Every answer but a 2xx is an error.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<()> {
        let status =
            timeout(PATIENCE, self.exchange(request)).await.context("no answer within a minute")??;
        if !(200..300).contains(&status) {
            bail!("status {status}: {}", String::from_utf8_lossy(&self.body).trim_end());
        }
        Ok(())
    }

    /// The same, where an answer of another length is an error too.
    pub(crate) async fn expect(&mut self, request: &[u8], length: usize) -> Result<()> {
        self.call(request).await?;
        if self.body.len() != length {
            bail!("{} bytes where {length} were due", self.body.len());
        }
        Ok(())
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the server closed the connection before its answer was whole");
            }
            self.body.clear();
            if let Some(status) = parse(&self.received, &mut self.body)? {
                return Ok(status);
            }
            if self.received.len() > LONGEST {
                bail!("an answer is longer than {LONGEST} bytes");
            }
        }
    }
}

/// A request that keeps its connection.
pub(crate) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(128 + body.len());
    // Writing to a Vec cannot fail.
    let _ = write!(request, "{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    if method != "GET" {
        let _ = write!(request, "content-length: {}\r\n", body.len());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// The status of an answer, once it is whole, and its body.
fn parse(received: &[u8], body: &mut Vec<u8>) -> Result<Option<u16>> {
    let Some((head, rest)) = split(received, b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().and_then(|line| line.get(9..12)).context("no status line")?.parse()?;
    let (mut length, mut chunked) = (0, false);
    for line in lines {
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        }
    }
    let whole = if chunked {
        join_chunks(rest, body)?
    } else {
        rest.get(..length).map(|bytes| body.extend_from_slice(bytes)).is_some()
    };
    Ok(whole.then_some(status))
}

/// Puts the chunks of a body together, and says whether the last one is there.
fn join_chunks(mut rest: &[u8], body: &mut Vec<u8>) -> Result<bool> {
    loop {
        let Some((size, after)) = split(rest, b"\r\n") else { return Ok(false) };
        let size = usize::from_str_radix(str::from_utf8(size)?, 16).context("a chunk without its size")?;
        let Some(next) = after.get(size.saturating_add(2)..) else { return Ok(false) };
        if size == 0 {
            return Ok(true);
        }
        body.extend_from_slice(after.get(..size).unwrap_or_default());
        rest = next;
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((bytes.get(..start)?, bytes.get(start + at.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nha\r\n3\r\nllo\r\n0\r\n\r\n",
        ] {
            for cut in 0..whole.len() {
                assert_eq!(
                    parse(&whole.as_bytes()[..cut], &mut Vec::new()).unwrap(),
                    None,
                    "{cut} of {whole:?}"
                );
            }
            let mut body = Vec::new();
            assert_eq!(parse(whole.as_bytes(), &mut body).unwrap(), Some(200));
            assert_eq!(body, b"hallo");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in ["HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"] {
            assert!(parse(bad.as_bytes(), &mut Vec::new()).is_err(), "{bad:?}");
        }
    }
}
