use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION},
};
use runtime_api::{Error, Result};
use tokio::time::{Duration, Instant, timeout};

use crate::{
    auth::{Access, Authorization},
    endpoint::{Endpoint, authority},
    request::{Request, silent},
    retry::{Attempt, Failure, Retries},
    transport::{Transport, unanswered},
};

const MAX_REDIRECTS: usize = 5;
/// Of what a registry says about a refusal, this much is read, and less is shown.
const MAX_REASON_BYTES: u64 = 16 << 10;
const MAX_REASON_SHOWN: usize = 200;
/// Less is no line that anyone has, but a registry that holds on to what it was asked for.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 10;

/// The requests for one image.
pub(crate) struct Session<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) access: Access,
    pub(crate) authorization: Option<Authorization>,
    /// How patient it is.
    pub(crate) retries: Retries,
    /// Whether the registry may send us to private addresses: it is at one itself, or was named as plain http.
    private: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(transport: &'a Transport, endpoint: Endpoint, access: Access) -> Self {
        let private = endpoint.is_plain();
        let retries = transport.config.retries;
        Self { transport, endpoint, access, authorization: None, retries, private }
    }

    /// Gets a manifest whose size nobody has told, with the headers that came with it.
    pub(crate) async fn manifest(
        &mut self,
        url: &Url,
        accept: &'static str,
        what: &str,
        limit: u64,
    ) -> Result<(HeaderMap, Bytes)> {
        let mut backoff = self.retries.begin();
        loop {
            match self.try_manifest(url, accept, what, limit).await {
                Ok(manifest) => return Ok(manifest),
                Err(failure) => backoff.pass(failure).await?,
            }
        }
    }

    async fn try_manifest(
        &mut self,
        url: &Url,
        accept: &'static str,
        what: &str,
        limit: u64,
    ) -> Attempt<(HeaderMap, Bytes)> {
        let response = self.get(url, &Request::get(accept), what).await?;
        let headers = response.headers().clone();
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.to_ascii_lowercase().starts_with("text/html") {
            let host = authority(response.url());
            let message = format!(
                "{host} answers with a web page for {what}: it is no registry, or a proxy is in between"
            );
            return Err(Error::invalid("not-a-registry", message).into());
        }
        let manifest = self.read_all(response, limit, "manifest").await?;
        Ok((headers, manifest))
    }

    /// Gets what the registry has at an address.
    pub(crate) async fn get(&mut self, url: &Url, request: &Request, what: &str) -> Attempt<Response> {
        let response = self.ask(url, request).await?;
        self.successful(response, what).await
    }

    /// Makes sure that an answer is the whole of what was asked for.
    pub(crate) async fn successful(&self, response: Response, what: &str) -> Attempt<Response> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => {
                let host = authority(response.url());
                let message = format!("{host} has no {what}; check the name, or push it first");
                Err(Error::invalid("image-not-found", message).into())
            }
            _ => Err(self.refusal(response, what).await),
        }
    }

    /// Asks the registry, authenticating where it is asked to.
    pub(crate) async fn ask(&mut self, url: &Url, request: &Request) -> Attempt<Response> {
        let response = self.follow(url, request).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.endpoint.owns(response.url()) {
            self.authorize(response.headers()).await?;
            return self.follow(url, request).await;
        }
        Ok(response)
    }

    /// Asks whether the registry wants authentication, and gets ready for it.
    pub(crate) async fn prepare(&mut self) -> Result<()> {
        let mut backoff = self.retries.begin();
        loop {
            match self.try_prepare().await {
                Ok(()) => return Ok(()),
                Err(failure) => backoff.pass(failure).await?,
            }
        }
    }

    async fn try_prepare(&mut self) -> Attempt<()> {
        let response = self.send(&self.endpoint.ping()?, &Request::get("*/*")).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => self.authorize(response.headers()).await,
            _ => Ok(()),
        }
    }

    /// Follows redirects of what is read; nothing is written but where it was meant to go.
    async fn follow(&mut self, start: &Url, request: &Request) -> Attempt<Response> {
        let mut url = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, request).await?;
            if !response.status().is_redirection() || request.method != Method::GET {
                return Ok(response);
            }
            url = location(&response)?;
        }
        Err(self.refused(&url, &format!("it is the last of more than {MAX_REDIRECTS} redirects")).into())
    }

    async fn send(&mut self, url: &Url, request: &Request) -> Attempt<Response> {
        let mut built = request.build(&self.client_for(url).await?, url);
        let own = self.endpoint.owns(url);
        if let (true, Some(authorization)) = (own, &self.authorization) {
            built = built.header(AUTHORIZATION, authorization.header()?);
        }
        let response = request.send(built, url, self.transport.config.timeouts.stall).await?;
        let is_private = |address| !self.transport.public.allows(address);
        self.private |= own && response.remote_addr().is_some_and(is_private);
        Ok(response)
    }

    /// The client for an address, once it was made sure that requests may go there.
    pub(crate) async fn client_for(&self, url: &Url) -> Attempt<Client> {
        if self.endpoint.owns(url) {
            return Ok(self.transport.client(url, false)?);
        }
        if url.scheme() != "https" && !self.endpoint.is_plain() {
            return Err(self.refused(url, "it is not encrypted").into());
        }
        if !self.private {
            self.require_public(url).await?;
        }
        Ok(self.transport.client(url, !self.private)?)
    }

    async fn require_public(&self, url: &Url) -> Attempt<()> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        match runtime_egress::resolve(&self.transport.public, host, port).await {
            Ok(_) => Ok(()),
            Err(runtime_egress::Error::Denied { .. }) => {
                Err(self.refused(url, "it is at a private address").into())
            }
            Err(error) => Err(Failure::passing(Error::registry_unavailable(
                format!("{host} cannot be looked up"),
                error,
            ))),
        }
    }

    fn refused(&self, url: &Url, why: &str) -> Error {
        let (host, to) = (&self.endpoint.host, authority(url));
        Error::invalid(
            "refused-redirect",
            format!("registry {host} points to {to}, which is not followed: {why}"),
        )
    }

    /// What to say of an answer that is not the one that was hoped for.
    pub(crate) async fn refusal(&self, response: Response, what: &str) -> Failure {
        let (status, host) = (response.status(), authority(response.url()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(&host).into(),
            StatusCode::TOO_MANY_REQUESTS => Failure::come_back(
                format!("{host} refuses more requests for now (429): wait, or log in for a higher limit"),
                &response,
            ),
            status if status.is_server_error() => {
                Failure::come_back(format!("{host} answered {status}: try again later"), &response)
            }
            status => {
                let reason = self.read_all(response, MAX_REASON_BYTES, "refusal").await.unwrap_or_default();
                let reason = String::from_utf8_lossy(&reason);
                let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_SHOWN);
                let message = format!("{host} answered {status} for {what}: {}", reason.collect::<String>());
                Error::invalid("registry-refused", message.trim_end_matches([':', ' '])).into()
            }
        }
    }

    /// What to say when a request was not let through, with credentials or without.
    pub(crate) fn denied(&self, host: &str) -> Error {
        let own = &self.endpoint.host;
        let message = match &self.authorization {
            Some(authorization) if authorization.had_credentials() => {
                format!(
                    "{host} does not accept the credentials for {own}: log in again, or check what they allow"
                )
            }
            _ => format!(
                "{host} refuses that without a login: check the name, or log in with `docker login {own}`"
            ),
        };
        Error::invalid("unauthorized", message)
    }

    /// Reads a whole answer that must be small.
    pub(crate) async fn read_all(&self, mut response: Response, limit: u64, what: &str) -> Attempt<Bytes> {
        let (mut body, mut pace) = (BytesMut::new(), Pace::default());
        while let Some(chunk) = self.next_chunk(&mut response, &mut pace).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(Error::invalid(
                    "too-large",
                    format!("the {what} is larger than {limit} bytes, the limit"),
                )
                .into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next bytes of an answer. One that stops, or only trickles, is as good as broken.
    pub(crate) async fn next_chunk(
        &self,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Attempt<Option<Bytes>> {
        let (stall, began) = (self.transport.config.timeouts.stall, Instant::now());
        let chunk = timeout(stall, response.chunk()).await;
        let chunk = chunk.map_err(|_| Failure::passing(silent(response.url())))?;
        let chunk = chunk.map_err(|error| unanswered(response.url(), error))?;
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        if !pace.keeps_up(bytes, began.elapsed(), stall) {
            let host = authority(response.url());
            let message = format!("{host} sends less than {SLOWEST_BYTES_PER_SECOND} bytes a second");
            return Err(Failure::passing(Error::RegistryUnavailable { message, source: None }));
        }
        Ok(chunk)
    }
}

/// How fast an answer comes, in stretches of the time that it may be silent. Only the waiting for it counts.
#[derive(Default)]
pub(crate) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    fn keeps_up(&mut self, bytes: usize, waited: Duration, stretch: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < stretch {
            return true;
        }
        let Self { bytes, waited } = std::mem::take(self);
        u128::from(bytes) * 1000 >= u128::from(SLOWEST_BYTES_PER_SECOND) * waited.as_millis()
    }
}

/// Where an answer says to go on.
pub(crate) fn location(response: &Response) -> Result<Url> {
    let from = response.url();
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let url = location.and_then(|location| from.join(location).ok());
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    };
    url.filter(usable).ok_or_else(|| {
        let message = format!("{} points to an address that cannot be followed", authority(from));
        Error::invalid("refused-redirect", message)
    })
}

#[cfg(test)]
mod tests;
