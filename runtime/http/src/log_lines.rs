use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtime_api::{Error, LogLine, LogStream, Result};

/// The longest line, in bytes of JSON. Ours are cut long before.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The lines of a log, one object a line (`OpenFaaS`).
pub(crate) fn of(body: Incoming) -> LogStream {
    let reader = Reader { body, text: BytesMut::new(), lines: VecDeque::new(), ended: false };
    stream::unfold(reader, async |mut reader| {
        let line = reader.next().await.transpose()?;
        // Nothing that follows what cannot be read makes sense.
        reader.ended |= line.is_err();
        Some((line, reader))
    })
    .boxed()
}

struct Reader {
    body: Incoming,
    /// What has arrived of a line that goes on.
    text: BytesMut,
    lines: VecDeque<Bytes>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            match self.lines.pop_front() {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return parse(&line).map(Some),
                None if self.ended => return Ok(None),
                None => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        let broken = |error| Error::unreachable("the provider's log broke off", error);
        match self.body.frame().await.transpose().map_err(broken)? {
            Some(frame) => self.text.extend_from_slice(&frame.into_data().unwrap_or_default()),
            None => {
                self.ended = true;
                self.text.extend_from_slice(b"\n");
            }
        }
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            self.lines.push_back(self.text.split_to(end + 1).freeze());
        }
        if self.text.len() > MAX_LINE_BYTES {
            let message = format!("the provider sent a log line of more than {MAX_LINE_BYTES} bytes");
            return Err(Error::Unavailable { message, source: None });
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Result<LogLine> {
    let line: LogLine = serde_json::from_slice(line)
        .map_err(|error| Error::unavailable("the provider's log cannot be understood", error))?;
    // Some providers keep the line's end (OpenFaaS).
    let text = line.text.trim_end_matches('\n').to_owned();
    Ok(LogLine { text, ..line })
}
