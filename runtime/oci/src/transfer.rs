use bytes::{Buf, Bytes};
use reqwest::{Response, StatusCode, Url, header::CONTENT_RANGE};
use runtime_api::Result;

use crate::{
    manifest::Content,
    request::Request,
    retry::{Attempt, Backoff, Failure},
    session::{Pace, Session},
};

/// As much progress makes up for the failures before it. There are so many of it in a blob at the most.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Content of a known digest on its way, over as many connections as it takes. Whether it is right is for the caller
/// to check, over all of it.
pub(crate) struct Transfer {
    url: Url,
    accept: &'static str,
    content: Content,
    received_bytes: u64,
    /// What is sent once more, by a registry that begins at the start again.
    repeated_bytes: u64,
    response: Option<(Response, Pace)>,
    /// Whether the registry may be asked for a part, as far as is known.
    takes_ranges: bool,
    backoff: Backoff,
    since_failure_bytes: u64,
}

impl Session<'_> {
    /// Content of the registry, as it arrives.
    pub(crate) fn transfer(&self, kind: &str, content: Content, accept: &'static str) -> Result<Transfer> {
        Ok(Transfer {
            url: self.endpoint.url(kind, &content.digest.to_string())?,
            accept,
            content,
            received_bytes: 0,
            repeated_bytes: 0,
            response: None,
            takes_ranges: true,
            backoff: self.retries.begin(),
            since_failure_bytes: 0,
        })
    }
}

impl Transfer {
    /// The next bytes; a connection that breaks is followed by another that goes on where it ended.
    pub(crate) async fn next(&mut self, session: &mut Session<'_>) -> Result<Option<Bytes>> {
        loop {
            match self.attempt(session).await {
                Ok(chunk) => return Ok(chunk),
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    async fn recover(&mut self, failure: Failure) -> Result<()> {
        self.response = None;
        if std::mem::take(&mut self.since_failure_bytes) >= PROGRESS_BYTES {
            self.backoff.forgive();
        }
        self.backoff.pass(failure).await
    }

    async fn attempt(&mut self, session: &mut Session<'_>) -> Attempt<Option<Bytes>> {
        let mut response = match self.response.take() {
            Some(response) => response,
            None => (self.open(session).await?, Pace::default()),
        };
        while let Some(mut chunk) = session.next_chunk(&mut response.0, &mut response.1).await? {
            let repeated = chunk.len().min(usize::try_from(self.repeated_bytes).unwrap_or(usize::MAX));
            chunk.advance(repeated);
            self.repeated_bytes -= repeated as u64;
            if !chunk.is_empty() {
                self.received_bytes += chunk.len() as u64;
                self.since_failure_bytes += chunk.len() as u64;
                self.response = Some(response);
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Asks for what is missing (RFC 9110 §14), or for all of it, where a registry does not do that.
    async fn open(&mut self, session: &mut Session<'_>) -> Attempt<Response> {
        let request = Request::get(self.accept);
        let what = self.content.digest.to_string();
        self.repeated_bytes = 0;
        let has_rest = self.received_bytes > 0 && self.received_bytes < self.content.size_bytes;
        if has_rest && self.takes_ranges {
            let rest = request.clone().from(self.received_bytes);
            let response = session.ask(&self.url, &rest).await?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT if self.is_the_rest(&response) => return Ok(response),
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => self.takes_ranges = false,
                _ => {
                    self.repeated_bytes = self.received_bytes;
                    return session.successful(response, &what).await;
                }
            }
        }
        self.repeated_bytes = self.received_bytes;
        session.get(&self.url, &request, &what).await
    }

    /// Whether an answer is the part that was asked for: its first byte, its last, and the size of the whole, if told.
    fn is_the_rest(&self, response: &Response) -> bool {
        let (first, size) = (self.received_bytes, self.content.size_bytes);
        let part = || {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
            let (range, whole) = range.split_once('/')?;
            let (from, to) = range.split_once('-')?;
            let is_whole = whole == "*" || whole.parse() == Ok(size);
            Some(from.parse() == Ok(first) && to.parse() == Ok(size - 1) && is_whole)
        };
        part().unwrap_or(false)
    }
}
