use std::str;

use anyhow::{Context, Result, bail};

/// No answer of a benchmark is longer.
const LONGEST: usize = 1 << 20;

/// An answer that has arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where the body begins, chunked or not.
    body: usize,
    chunked: bool,
    /// Bytes of the body, without what chunks add.
    pub(crate) length: usize,
}

impl Answer {
    /// Looks whether an answer is whole. It copies nothing and allocates nothing, since it runs on the server's cores.
    pub(crate) fn parse(received: &[u8]) -> Result<Option<Self>> {
        if received.len() > LONGEST {
            bail!("an answer is longer than {LONGEST} bytes");
        }
        let (mut status, mut length, mut chunked) = (None, 0, false);
        let mut at = 0;
        loop {
            let Some((line, next)) = line(received, at) else { return Ok(None) };
            at = next;
            if status.is_none() {
                let digits = line.get(9..12).context("no status line")?;
                status = Some(str::from_utf8(digits)?.parse().context("a status that is no number")?);
            } else if let Some(value) = value(line, b"content-length:") {
                length = str::from_utf8(value)?.trim().parse()?;
            } else if value(line, b"transfer-encoding:").is_some() {
                chunked = true;
            } else if line.is_empty() {
                break;
            }
        }
        let body = at;
        let whole = if chunked {
            let mut pieces = Chunks { received, at };
            length = 0;
            loop {
                match pieces.next()? {
                    None => break false,
                    Some([]) => break true,
                    Some(piece) => length += piece.len(),
                }
            }
        } else {
            received.len() >= body + length
        };
        Ok(whole.then_some(Self { status: status.unwrap_or_default(), body, chunked, length }))
    }

    /// The body, which lies in what this was parsed from.
    pub(crate) fn body(&self, received: &[u8]) -> Result<Vec<u8>> {
        if !self.chunked {
            return Ok(received.get(self.body..self.body + self.length).unwrap_or_default().to_vec());
        }
        let (mut body, mut chunks) = (Vec::with_capacity(self.length), Chunks { received, at: self.body });
        while let Some(piece) = chunks.next()?.filter(|piece| !piece.is_empty()) {
            body.extend_from_slice(piece);
        }
        Ok(body)
    }
}

/// A line without its end, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some((rest.get(..end)?.strip_suffix(b"\r")?, at + end + 1))
}

/// What follows a header's name, which is in lower case and has its colon.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

struct Chunks<'a> {
    received: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    /// The next chunk, empty at the end; nothing where it has not arrived yet.
    fn next(&mut self) -> Result<Option<&'a [u8]>> {
        let Some((size, begin)) = line(self.received, self.at) else { return Ok(None) };
        let size = usize::from_str_radix(str::from_utf8(size)?, 16).context("a chunk without its size")?;
        let end = begin.saturating_add(size);
        if self.received.len() < end.saturating_add(2) {
            return Ok(None);
        }
        self.at = end + 2;
        Ok(self.received.get(begin..end))
    }
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
                assert_eq!(Answer::parse(&whole.as_bytes()[..cut]).unwrap(), None, "{cut} of {whole:?}");
            }
            let answer = Answer::parse(whole.as_bytes()).unwrap().unwrap();
            assert_eq!((answer.status, answer.length), (200, 5));
            assert_eq!(answer.body(whole.as_bytes()).unwrap(), b"hallo");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in [
            "HTTP\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(Answer::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
