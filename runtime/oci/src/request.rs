use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RANGE},
};
use runtime_api::Error;
use tokio::{select, sync::watch, time::timeout};

use crate::{
    endpoint::authority,
    retry::{Attempt, Failure},
    transport::unanswered,
};

/// What is handed to the network at once: small enough that a slow line is not taken for a dead one.
const PIECE_BYTES: usize = 16 << 10;
/// An answer to an upload may wait for what the system still has to send, and for the registry's own disk.
const STALLS_FOR_ANSWER: u32 = 4;

/// A request that can be sent more than once.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    accept: &'static str,
    /// Where what is wanted begins.
    first_byte: u64,
    content: Option<(&'static str, Bytes)>,
}

impl Request {
    pub(crate) fn get(accept: &'static str) -> Self {
        Self { method: Method::GET, accept, first_byte: 0, content: None }
    }

    pub(crate) fn head() -> Self {
        Self { method: Method::HEAD, ..Self::get("*/*") }
    }

    pub(crate) fn post() -> Self {
        Self { method: Method::POST, ..Self::get("*/*") }
    }

    pub(crate) fn put(content_type: &'static str, bytes: Bytes) -> Self {
        Self { method: Method::PUT, content: Some((content_type, bytes)), ..Self::get("*/*") }
    }

    /// The same from some byte on (RFC 9110 §14.2).
    pub(crate) fn from(self, first_byte: u64) -> Self {
        Self { first_byte, ..self }
    }

    pub(crate) fn build(&self, client: &Client, url: &Url) -> RequestBuilder {
        let built = client.request(self.method.clone(), url.clone()).header(ACCEPT, self.accept);
        match self.first_byte {
            0 => built,
            first_byte => built.header(RANGE, format!("bytes={first_byte}-")),
        }
    }

    /// Sends what was built of this. It may take long, as long as something moves.
    pub(crate) async fn send(&self, built: RequestBuilder, url: &Url, stall: Duration) -> Attempt<Response> {
        let answer = match &self.content {
            Some((content_type, bytes)) => {
                let (upload, taken) = Upload::new(bytes.clone());
                let built = built.header(CONTENT_TYPE, *content_type).header(CONTENT_LENGTH, bytes.len());
                let body = reqwest::Body::wrap(upload);
                while_it_moves(built.body(body).send(), taken, stall).await
            }
            None if self.method == Method::POST => {
                timeout(stall, built.header(CONTENT_LENGTH, 0).send()).await.ok()
            }
            None => timeout(stall, built.send()).await.ok(),
        };
        // Whoever is silent for that long is not asked again.
        answer.ok_or_else(|| Failure::Final(silent(url)))?.map_err(|error| unanswered(url, error))
    }
}

pub(crate) fn silent(url: &Url) -> Error {
    let message = format!("{} did not answer in time", authority(url));
    Error::RegistryUnavailable { message, source: None }
}

/// Waits for the answer to an upload; nothing when it stops moving.
async fn while_it_moves<T>(
    answer: impl Future<Output = T>,
    mut taken: watch::Receiver<()>,
    stall: Duration,
) -> Option<T> {
    let mut answer = pin!(answer);
    loop {
        select! {
            answer = &mut answer => return Some(answer),
            moved = timeout(stall, taken.changed()) => match moved {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return timeout(stall * STALLS_FOR_ANSWER, answer).await.ok(),
                Err(_) => return None,
            },
        }
    }
}

/// Bytes that say when the network takes some of them, and that it took the last by letting go of `taken`.
struct Upload {
    rest: Bytes,
    taken: Option<watch::Sender<()>>,
}

impl Upload {
    fn new(bytes: Bytes) -> (Self, watch::Receiver<()>) {
        let (sender, receiver) = watch::channel(());
        (Self { rest: bytes, taken: Some(sender) }, receiver)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        match self.taken.take() {
            Some(taken) if !self.rest.is_empty() => {
                taken.send_replace(());
                self.taken = Some(taken);
            }
            _ => {}
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    /// A line of so many bytes a second, and then what the registry does.
    async fn upload(bytes: usize, speed: u32, registry: impl Future<Output = ()>) -> Option<usize> {
        let (mut upload, taken) = Upload::new(Bytes::from(vec![0; bytes]));
        let answer = async {
            let mut sent = 0;
            while let Some(Ok(frame)) = upload.frame().await {
                let length = frame.into_data().unwrap().len();
                sleep(Duration::from_secs(1) * u32::try_from(length).unwrap() / speed).await;
                sent += length;
            }
            registry.await;
            sent
        };
        while_it_moves(answer, taken, STALL).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_gets_a_large_module_through() {
        let began = Instant::now();
        let bytes = (16 << 20) + 1;
        assert_eq!(upload(bytes, 125_000, async {}).await, Some(bytes));
        assert!(began.elapsed() > STALL * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_stops_is_given_up() {
        let began = Instant::now();
        assert_eq!(upload(1 << 20, 100, async {}).await, None, "a piece takes 164 s");
        assert!(began.elapsed() <= STALL * 2);
        assert_eq!(upload(1 << 20, 125_000, std::future::pending()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_may_think_about_what_it_got() {
        assert_eq!(upload(1000, 125_000, sleep(STALL * 3)).await, Some(1000));
    }
}
