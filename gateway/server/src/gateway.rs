use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, middleware::from_fn, routing::any};
use http::{HeaderName, HeaderValue, Request, Response, header::CONNECTION};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::Service};
use prometheus::Registry;
use runtime_api::{CallId, Error, Provider, Result, VersionInfo};
use runtime_http::{
    CALL_ID, Credentials, Failure, Gate, Peer, START_TIME, TimedBody, answer, answer_failures, call_id,
    check_head,
};
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::ServiceExt;

use crate::{
    CallBody, FunctionStore, MetricsEndpoint, ScaleFromZero,
    activator::Activator,
    async_functions,
    async_functions::{Asynchronous, KnownBy, Later},
    async_routes::async_routes,
    functions,
    logs::LogsServer,
    metrics::Metrics,
    queue_metrics::QueueMetrics,
    routes::Backend,
};

/// Which gateway answered (`OpenFaaS`).
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// What a gateway is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `/system` and `/ui` ask for; `None` lets everybody in, whatever they present.
    pub basic_auth: Option<Credentials>,
    /// Its own version, for `/system/info` and `X-Served-By`.
    pub version: VersionInfo,
    /// Once this is cancelled, `/healthz` says so to whoever sends requests here.
    pub shutdown: CancellationToken,
    /// Where requests for `/system` and `/ui` are answered, so that no call waits for an upload or a long list.
    pub control: Handle,
    /// How functions at zero replicas are woken; `None` where the provider is known to do it itself, or nobody is to.
    pub scale_from_zero: Option<ScaleFromZero>,
    /// Another server that logs are read from, by its URL (`OpenFaaS` `logs_provider_url`); `None` means the provider.
    /// The process must have a default provider of rustls for it.
    pub logs_server: Option<String>,
    /// Where asynchronous calls are kept; without, there are none.
    pub later: Option<Later>,
    /// What can be deployed from here, for everybody to read.
    pub store: Option<FunctionStore>,
}

/// The `OpenFaaS` gateway in front of a provider.
pub struct Gateway(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) activator: Option<Activator>,
    registry: Registry,
    shutdown: CancellationToken,
    control: Handle,
    pub(crate) gate: Gate,
    /// Calls that run later, if there is a queue for them.
    pub(crate) later: Option<Asynchronous>,
    served_by: HeaderValue,
    open: Router,
    protected: Router,
}

impl Gateway {
    /// Registers the gateway's metrics and lays out its routes.
    ///
    /// # Errors
    /// The registry has a gateway's metrics already, the version cannot be sent in a header, or the server of logs has no
    /// URL that can be asked.
    pub fn new(config: Config, provider: Arc<dyn Provider>, registry: &Registry) -> Result<Self> {
        let metrics = Arc::new(Metrics::new(registry).map_err(Error::internal)?);
        let served_by = format!("fawn/{}", config.version.release).try_into().map_err(Error::internal)?;
        let (shutdown, control) = (config.shutdown, config.control);
        let logs_server = config.logs_server.as_deref().map(LogsServer::new).transpose()?;
        let backend =
            Backend::new(provider.clone(), metrics.clone(), config.version, shutdown.clone(), logs_server);
        let mut protected = backend.protected_routes();
        if let Some(later) = &config.later {
            let routes = async_routes(later.queue.clone());
            protected = routes.layer(from_fn(answer_failures)).fallback_service(protected);
        } else {
            let refuse = any(async || Failure::from(no_queue()));
            let routes =
                Router::new().route("/system/async", refuse.clone()).route("/system/async/{*rest}", refuse);
            protected = routes.layer(from_fn(answer_failures)).fallback_service(protected);
        }
        let asynchronous = |later: Later| -> Result<_> {
            let metrics = QueueMetrics::new(later.queue.clone(), registry)?;
            Ok(Asynchronous::new(later, metrics))
        };
        Ok(Self(Arc::new(Parts {
            provider,
            metrics,
            activator: config.scale_from_zero.map(Activator::new),
            registry: registry.clone(),
            shutdown,
            control,
            gate: Gate::new(config.basic_auth.as_ref(), registry)?,
            later: config.later.map(asynchronous).transpose()?,
            served_by,
            open: backend.open_routes(config.store),
            protected,
        })))
    }

    pub(crate) fn parts(&self) -> Arc<Parts> {
        Arc::clone(&self.0)
    }

    /// What answers the requests of one connection.
    pub fn service(&self, peer: SocketAddr) -> GatewayService {
        GatewayService { parts: Arc::clone(&self.0), peer: peer.into() }
    }

    /// What answers on the metrics port.
    pub fn metrics_endpoint(&self) -> MetricsEndpoint {
        let parts = &self.0;
        let (metrics, provider) = (Arc::clone(&parts.metrics), Arc::clone(&parts.provider));
        let queue = parts.later.as_ref().map(|later| Arc::clone(&later.metrics));
        MetricsEndpoint::new(parts.registry.clone(), metrics, queue, provider, parts.shutdown.clone())
    }
}

impl Parts {
    async fn answer(&self, peer: &Peer, mut request: Request<Incoming>) -> Response<CallBody> {
        let call_id = call_id(request.headers());
        let (id, now) = stamp(&call_id);
        request.headers_mut().insert(CALL_ID, id.clone());
        request.headers_mut().append(START_TIME, now.clone());
        let mut response = match check_head(&mut request) {
            Ok(()) => self.route(call_id, peer, request).await,
            Err(error) => {
                // What follows on a connection that may be misread is not a request.
                let mut response = answer(&error, &call_id).map(CallBody::from);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                response
            }
        };
        let id = response.extensions_mut().remove().map_or(id, |KnownBy(id)| id);
        let headers = response.headers_mut();
        headers.insert(CALL_ID, id);
        headers.insert(START_TIME, now);
        headers.insert(SERVED_BY, self.served_by.clone());
        response
    }

    async fn route(&self, call_id: CallId, peer: &Peer, request: Request<Incoming>) -> Response<CallBody> {
        match request.uri().path().split('/').nth(1) {
            Some("function") => functions::call(self, call_id, peer, request).await,
            Some("async-function") => match &self.later {
                Some(later) => async_functions::answer_later(self, later, call_id, peer, request).await,
                None => answer(&no_queue(), &call_id).map(CallBody::from),
            },
            Some("system" | "ui") => self.protected(&call_id, peer, request).await,
            _ => answer_from(self.open.clone(), request).await,
        }
    }

    /// The only way to the protected routes, whatever the path says after its first segment.
    async fn protected(
        &self,
        call_id: &CallId,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response<CallBody> {
        if let Err(error) = self.gate.admit(peer.address, request.uri().path(), request.headers()).await {
            return answer(&error, call_id).map(CallBody::from);
        }
        let answering = self.control.spawn(answer_from(self.protected.clone(), request));
        let answered = AbortOnDropHandle::new(answering).await;
        answered.unwrap_or_else(|error| answer(&Error::internal(error), call_id).map(CallBody::from))
    }
}

fn no_queue() -> Error {
    Error::invalid("not-supported", "this gateway keeps no asynchronous calls: `fawn up` does")
}

/// `X-Call-Id` and `X-Start-Time`.
fn stamp(call_id: &CallId) -> (HeaderValue, HeaderValue) {
    // A call id is visible ASCII, and these nanoseconds fit until the year 2554.
    let id = HeaderValue::from_str(call_id.as_str()).unwrap_or(HeaderValue::from_static("invalid"));
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (id, HeaderValue::from(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)))
}

async fn answer_from(routes: Router, request: Request<Incoming>) -> Response<CallBody> {
    let request = request.map(|incoming| TimedBody::of_request(incoming, Arc::default()));
    let response = routes.oneshot(request).await.unwrap_or_else(|never| match never {});
    response.map(|body| CallBody::from(body.map_err(Into::into).boxed_unsync()))
}

/// A [`Gateway`] as one client sees it.
#[derive(Clone)]
pub struct GatewayService {
    parts: Arc<Parts>,
    peer: Peer,
}

impl Service<Request<Incoming>> for GatewayService {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { parts, peer } = self.clone();
        Box::pin(async move { Ok(parts.answer(&peer, request).await) })
    }
}
