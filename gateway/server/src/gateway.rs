use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::Router;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::Service};
use prometheus::Registry;
use runtime_api::{CallId, Error, Provider, Result, VersionInfo};
use runtime_http::{CALL_ID, call_id};
use tower::ServiceExt;

use crate::{
    CallBody, Credentials, MetricsEndpoint,
    auth::{BasicAuth, refusal},
    functions,
    headers::{SERVED_BY, START_TIME},
    metrics::Metrics,
    routes::Backend,
};

/// What a gateway is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `/system` and `/ui` ask for; `None` lets everybody in, whatever they present.
    pub basic_auth: Option<Credentials>,
    /// Its own version, for `/system/info` and `X-Served-By`.
    pub version: VersionInfo,
}

/// The `OpenFaaS` gateway in front of a provider.
pub struct Gateway(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) metrics: Arc<Metrics>,
    registry: Registry,
    auth: Option<BasicAuth>,
    served_by: HeaderValue,
    open: Router,
    protected: Router,
}

impl Gateway {
    /// Registers the gateway's metrics and lays out its routes.
    ///
    /// # Errors
    /// The registry has a gateway's metrics already, or the version cannot be sent in a header.
    pub fn new(config: Config, provider: Arc<dyn Provider>, registry: &Registry) -> Result<Self> {
        let metrics = Arc::new(Metrics::new(registry).map_err(Error::internal)?);
        let served_by = format!("fawn/{}", config.version.release).try_into().map_err(Error::internal)?;
        let backend = Backend::new(Arc::clone(&provider), Arc::clone(&metrics), config.version);
        Ok(Self(Arc::new(Parts {
            provider,
            metrics,
            registry: registry.clone(),
            auth: config.basic_auth.as_ref().map(BasicAuth::new),
            served_by,
            open: backend.open_routes(),
            protected: backend.protected_routes(),
        })))
    }

    /// What answers the requests of one connection.
    pub fn service(&self, peer: SocketAddr) -> GatewayService {
        let peer = peer.ip().to_canonical().to_string();
        // An address is visible ASCII.
        let peer = HeaderValue::try_from(peer).unwrap_or(HeaderValue::from_static("unknown"));
        GatewayService { parts: Arc::clone(&self.0), peer }
    }

    /// What answers on the metrics port.
    pub fn metrics_endpoint(&self) -> MetricsEndpoint {
        let parts = &self.0;
        MetricsEndpoint::new(parts.registry.clone(), Arc::clone(&parts.metrics), Arc::clone(&parts.provider))
    }
}

impl Parts {
    async fn answer(&self, peer: &HeaderValue, mut request: Request<Incoming>) -> Response<CallBody> {
        let call_id = call_id(request.headers());
        let (id, now) = stamp(&call_id);
        request.headers_mut().insert(CALL_ID, id.clone());
        request.headers_mut().append(START_TIME, now.clone());
        // The only way to the protected routes, whatever the path says after its first segment.
        let mut response = match request.uri().path().split('/').nth(1) {
            Some("function") => functions::call(self, call_id, peer, request).await,
            Some("system" | "ui") if !self.admits(&request) => refusal().map(CallBody::from),
            Some("system" | "ui") => answer_from(&self.protected, request).await,
            _ => answer_from(&self.open, request).await,
        };
        let headers = response.headers_mut();
        headers.insert(CALL_ID, id);
        headers.insert(START_TIME, now);
        headers.insert(SERVED_BY, self.served_by.clone());
        response
    }

    fn admits(&self, request: &Request<Incoming>) -> bool {
        self.auth.as_ref().is_none_or(|auth| auth.admits(request.headers()))
    }
}

/// `X-Call-Id` and `X-Start-Time`.
fn stamp(call_id: &CallId) -> (HeaderValue, HeaderValue) {
    // A call id is visible ASCII, and these nanoseconds fit until the year 2554.
    let id = HeaderValue::from_str(call_id.as_str()).unwrap_or(HeaderValue::from_static("invalid"));
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (id, HeaderValue::from(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)))
}

async fn answer_from(routes: &Router, request: Request<Incoming>) -> Response<CallBody> {
    let response = routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    response.map(|body| CallBody::from(body.map_err(Into::into).boxed_unsync()))
}

/// A [`Gateway`] as one client sees it.
#[derive(Clone)]
pub struct GatewayService {
    parts: Arc<Parts>,
    peer: HeaderValue,
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
