use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Name, Resolve, Resolving},
    header::{ACCEPT, AUTHORIZATION, LOCATION},
    redirect,
};
use runtime_api::{Error, Result};
use runtime_egress::Policy;

use crate::{
    RegistryConfig,
    auth::{Access, Authorization},
    endpoint::{Endpoint, authority},
};

const MAX_REDIRECTS: usize = 5;

/// Speaks HTTP to registries, within bounds. What a registry says never decides where credentials go.
pub(crate) struct Transport {
    pub(crate) config: RegistryConfig,
    clients: Clients,
}

/// One client for each way of connecting, made when it is first needed: reading the system's certificates fails on
/// machines that have none, and a registry of plain http needs none.
#[derive(Default)]
struct Clients {
    anywhere: OnceLock<Client>,
    anywhere_unverified: OnceLock<Client>,
    public: OnceLock<Client>,
    public_unverified: OnceLock<Client>,
}

/// The requests for one image.
pub(crate) struct Session<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) authorization: Option<Authorization>,
    /// Whether the registry may send us to private addresses: it is at one itself, or was named as plain http.
    private: bool,
}

impl Transport {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Clients::default() }
    }

    pub(crate) fn session(&self, endpoint: Endpoint) -> Session<'_> {
        let private = endpoint.is_plain();
        Session { transport: self, endpoint, authorization: None, private }
    }

    pub(crate) fn skips_verification(&self, url: &Url) -> bool {
        let skipped = &self.config.skip_tls_verification;
        skipped.contains(&authority(url))
            || url.host_str().is_some_and(|host| skipped.iter().any(|name| name == host))
    }

    fn client(&self, url: &Url, public_only: bool) -> Result<&Client> {
        // Without TLS there is nothing to verify.
        let verify = url.scheme() == "https" && !self.skips_verification(url);
        let slot = match (public_only, verify) {
            (false, true) => &self.clients.anywhere,
            (false, false) => &self.clients.anywhere_unverified,
            (true, true) => &self.clients.public,
            (true, false) => &self.clients.public_unverified,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(public_only, verify)?;
        Ok(slot.get_or_init(|| client))
    }

    fn build(&self, public_only: bool, verify: bool) -> Result<Client> {
        let mut builder = Client::builder()
            .user_agent(concat!("fawn/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.config.timeouts.connect)
            .read_timeout(self.config.timeouts.stall)
            .tls_danger_accept_invalid_certs(!verify);
        if public_only {
            builder = builder.dns_resolver(PublicAddresses(Policy::public()));
        }
        builder.build().map_err(|error| {
            Error::unavailable("no https client: are the system's certificates there?", error)
        })
    }
}

/// Resolves names to public addresses and to no others, each time a connection is made.
struct PublicAddresses(Policy);

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            // The port is put in by the client.
            let addresses = runtime_egress::resolve(&policy, name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

impl Session<'_> {
    /// Gets a document or blob of the registry, following redirects and authenticating where it is asked to.
    pub(crate) async fn get(&mut self, url: Url, accept: &'static str, what: &str) -> Result<Response> {
        let mut response = self.follow(&url, accept).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.endpoint.owns(response.url()) {
            self.authorize(response.headers(), Access::Pull).await?;
            response = self.follow(&url, accept).await?;
        }
        self.checked(response, what)
    }

    /// Asks whether the registry wants authentication, and gets ready for it.
    pub(crate) async fn prepare(&mut self, access: Access) -> Result<()> {
        let response = self.send(&self.endpoint.ping()?, "*/*").await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => self.authorize(response.headers(), access).await,
            _ => Ok(()),
        }
    }

    async fn follow(&mut self, start: &Url, accept: &'static str) -> Result<Response> {
        let mut url = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&url, accept).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = redirection(&response)?;
        }
        Err(self.refused(&url, &format!("it is the last of more than {MAX_REDIRECTS} redirects")))
    }

    async fn send(&mut self, url: &Url, accept: &'static str) -> Result<Response> {
        let client = self.client_for(url).await?;
        let mut request = client.get(url.clone()).header(ACCEPT, accept);
        let own = self.endpoint.owns(url);
        if let (true, Some(authorization)) = (own, &self.authorization) {
            request = request.header(AUTHORIZATION, authorization.header()?);
        }
        let response = request.send().await.map_err(|error| unanswered(url, error))?;
        let is_private = |address| !Policy::public().allows(address);
        self.private |= own && response.remote_addr().is_some_and(is_private);
        Ok(response)
    }

    /// The client for an address, once it was made sure that requests may go there.
    pub(crate) async fn client_for(&self, url: &Url) -> Result<&Client> {
        if self.endpoint.owns(url) {
            return self.transport.client(url, false);
        }
        if url.scheme() != "https" && !self.endpoint.is_plain() {
            return Err(self.refused(url, "it is not encrypted"));
        }
        if !self.private {
            self.require_public(url).await?;
        }
        self.transport.client(url, !self.private)
    }

    async fn require_public(&self, url: &Url) -> Result<()> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        match runtime_egress::resolve(&Policy::public(), host, port).await {
            Ok(_) => Ok(()),
            Err(runtime_egress::Error::Denied { .. }) => Err(self.refused(url, "it is at a private address")),
            Err(error) => Err(Error::unavailable(format!("{host} cannot be looked up"), error)),
        }
    }

    fn refused(&self, url: &Url, why: &str) -> Error {
        let (host, to) = (&self.endpoint.host, authority(url));
        Error::invalid(
            "refused-redirect",
            format!("registry {host} points to {to}, which is not followed: {why}"),
        )
    }

    fn checked(&self, response: Response, what: &str) -> Result<Response> {
        let (status, host) = (response.status(), authority(response.url()));
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied(&host)),
            StatusCode::NOT_FOUND => Err(Error::invalid(
                "image-not-found",
                format!("{host} has no {what}; check the name, or push it first"),
            )),
            StatusCode::TOO_MANY_REQUESTS => Err(Error::Unavailable {
                message: format!(
                    "{host} refuses more requests for now (429): wait, or log in for a higher limit"
                ),
                source: None,
            }),
            status if status.is_server_error() => Err(Error::Unavailable {
                message: format!("{host} answered {status}: try again later"),
                source: None,
            }),
            status => Err(Error::invalid("registry-refused", format!("{host} answered {status} for {what}"))),
        }
    }

    /// What to say when a request was not let through, with credentials or without.
    pub(crate) fn denied(&self, host: &str) -> Error {
        let own = &self.endpoint.host;
        let message = match &self.authorization {
            Some(authorization) if authorization.had_credentials() => {
                format!(
                    "{host} does not accept the credentials for {own}: log in again, or check what they may read"
                )
            }
            _ => format!(
                "{host} wants credentials, and there are none for {own}: log in with `docker login {own}`"
            ),
        };
        Error::invalid("unauthorized", message)
    }
}

fn redirection(response: &Response) -> Result<Url> {
    let from = response.url();
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let url = location.and_then(|location| from.join(location).ok());
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    };
    url.filter(usable).ok_or_else(|| {
        let message = format!("{} redirects to an address that cannot be followed", authority(from));
        Error::invalid("refused-redirect", message)
    })
}

/// Reads a whole answer that must be small.
pub(crate) async fn read_all(mut response: Response, limit: u64, what: &str) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut response).await? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(Error::invalid(
                "too-large",
                format!("the {what} is larger than {limit} bytes, the limit"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

pub(crate) async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>> {
    let chunk = response.chunk().await;
    chunk.map_err(|error| unanswered(response.url(), error))
}

pub(crate) fn unanswered(url: &Url, error: reqwest::Error) -> Error {
    let host = authority(url);
    let message = match (error.is_timeout(), error.is_connect(), url.scheme()) {
        (true, ..) => format!("{host} did not answer in time"),
        (_, true, "https") => {
            let cause = root_cause(&error);
            format!(
                "{host} cannot be reached over https ({cause}); a registry of plain http, or with a certificate of its \
                 own, must be allowed by name"
            )
        }
        (_, true, _) => format!("{host} cannot be reached ({})", root_cause(&error)),
        _ => format!("the connection to {host} broke off"),
    };
    // The address may have a signature in it that gives access.
    Error::unavailable(message, error.without_url())
}

/// What the user can act on: the name that is not known, the port that is closed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
