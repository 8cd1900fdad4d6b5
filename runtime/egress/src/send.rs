use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::{timeout, timeout_at},
};
use tracing::debug;

use crate::{
    Error, Policy, Result,
    connect::{connect, deadline_after},
    tls,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the parts of an exchange may take. How long the body may take is up to who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From looking the name up to the end of the TLS handshake.
    pub connect: Duration,
    /// From there to the head of the answer.
    pub first_byte: Duration,
}

/// An answer's body. Dropping it ends the connection.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    _connection: Connection,
}

/// The task that moves the bytes of one connection; it ends with whoever wants them.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

/// Sends a request with an absolute URI over a connection of its own, and follows no redirects.
///
/// # Errors
/// [`Error::Denied`] when the policy does not allow the destination; otherwise why there is no answer.
pub async fn send<B>(
    policy: &Policy,
    request: Request<B>,
    timeouts: Timeouts,
) -> Result<Response<ResponseBody>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (request, target) = prepare(request)?;
    let deadline = deadline_after(timeouts.connect);
    let stream = connect(policy, &target.host, target.port, timeouts.connect).await?;
    if !target.secure {
        return exchange(TokioIo::new(stream), request, &target, timeouts.first_byte).await;
    }
    let stream = timeout_at(deadline, tls::encrypt(policy, &target.host, stream)).await;
    let stream = stream.map_err(|_| target.connect_timed_out(timeouts.connect))??;
    exchange(TokioIo::new(stream), request, &target, timeouts.first_byte).await
}

struct Target {
    host: String,
    port: u16,
    secure: bool,
}

impl Target {
    fn connect_timed_out(&self, limit: Duration) -> Error {
        Error::ConnectTimedOut { host: self.host.clone(), port: self.port, limit }
    }
}

/// Takes the destination out of the URI and puts the rest in the form that servers expect (RFC 9112 §3.2.1).
fn prepare<B>(mut request: Request<B>) -> Result<(Request<B>, Target)> {
    if request.method() == http::Method::CONNECT {
        return Err(Error::InvalidRequest("CONNECT is for proxies; ask for the destination itself"));
    }
    let secure = match request.uri().scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(Error::InvalidRequest("its scheme must be http or https")),
    };
    let authority = request.uri().authority().ok_or(Error::InvalidRequest("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(Error::InvalidRequest(
            "its host holds a user name; send an authorization header instead",
        ));
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str() != authority.host() => {
            return Err(Error::InvalidRequest("its port is not a number below 65536"));
        }
        None if secure => 443,
        None => 80,
    };
    let target = Target { host: authority.host().to_owned(), port, secure };
    let host_header = HeaderValue::from_str(authority.as_str());
    let host_header = host_header.map_err(|_| Error::InvalidRequest("its host is not ASCII"))?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::InvalidRequest("its path is not valid"))?;
    *request.version_mut() = http::Version::HTTP_11;
    request.headers_mut().insert(HOST, host_header);
    Ok((request, target))
}

async fn exchange<S, B>(
    stream: TokioIo<S>,
    request: Request<B>,
    target: &Target,
    limit: Duration,
) -> Result<Response<ResponseBody>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let failed = |source| Error::HttpFailed { host: target.host.clone(), source };
    let (sender, driver) = http1::handshake(stream).await.map_err(failed)?;
    let connection = Connection(tokio::spawn(async move {
        if let Err(error) = driver.await {
            debug!(%error, "outgoing connection ended");
        }
    }));
    let response = timeout(limit, answer(sender, request)).await;
    let response =
        response.map_err(|_| Error::AnswerTimedOut { host: target.host.clone(), limit })?.map_err(failed)?;
    Ok(response.map(|incoming| ResponseBody { incoming, _connection: connection }))
}

async fn answer<B>(mut sender: SendRequest<B>, request: Request<B>) -> hyper::Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    sender.send_request(request).await
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
