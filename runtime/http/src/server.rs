use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Instant};

use axum::{Router, body::Body};
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request, StatusCode, header::CONNECTION};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::Service};
use prometheus::Registry;
use runtime_api::{CallId, Error, Provider, Response, Result, empty, full};
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::ServiceExt;

use crate::{
    CALL_ID, Credentials, FunctionCall, Gate, Peer, TimedBody, answer,
    answers::PROVIDER_ERROR,
    call_id, check_head, forward_request,
    headers::FORWARDED_FOR,
    metrics::{Metrics, path_label, scrape},
    no_route, system_routes,
};

/// Where answers may last as long as somebody listens.
const LOGS: &str = "/system/logs";

/// What a [`ProviderServer`] is told.
#[derive(Clone, Debug)]
pub struct ProviderServerConfig {
    /// What everything below `/system` asks for; `None` lets everybody in.
    pub basic_auth: Option<Credentials>,
    /// Once this is cancelled, `/healthz` says so to whoever sends requests here, and logs that are followed end.
    pub shutdown: CancellationToken,
    /// Where requests other than calls are answered, so that no call waits for an upload or a long list.
    pub control: Handle,
}

/// The provider API of `OpenFaaS` in front of a provider, for gateways: `/system` behind credentials, and calls, health
/// and metrics for whoever reaches it.
pub struct ProviderServer(Arc<Parts>);

struct Parts {
    provider: Arc<dyn Provider>,
    gate: Gate,
    shutdown: CancellationToken,
    control: Handle,
    system: Router,
    metrics: Metrics,
    registry: Registry,
}

impl ProviderServer {
    /// Registers the provider's metrics and lays out its routes.
    ///
    /// # Errors
    /// The registry has a provider's metrics already.
    pub fn new(
        config: ProviderServerConfig,
        provider: Arc<dyn Provider>,
        registry: &Registry,
    ) -> Result<Self> {
        Ok(Self(Arc::new(Parts {
            gate: Gate::new(config.basic_auth.as_ref(), registry)?,
            shutdown: config.shutdown,
            control: config.control,
            system: system_routes(Arc::clone(&provider)),
            metrics: Metrics::new(registry)?,
            registry: registry.clone(),
            provider,
        })))
    }

    /// What answers the requests of one connection.
    pub fn service(&self, peer: SocketAddr) -> ProviderService {
        ProviderService { parts: Arc::clone(&self.0), peer: peer.into() }
    }

    /// What answers on the metrics port.
    pub fn status(&self) -> ProviderStatus {
        ProviderStatus(Arc::clone(&self.0))
    }
}

impl Parts {
    async fn answer(self: Arc<Self>, peer: &Peer, mut request: Request<Incoming>) -> Response {
        let call_id = call_id(request.headers());
        if let Ok(id) = HeaderValue::from_str(call_id.as_str()) {
            request.headers_mut().insert(CALL_ID, id);
        }
        if let Err(error) = check_head(&mut request) {
            // What follows on a connection that may be misread is not a request.
            let mut response = answer(&error, &call_id);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        if request.uri().path().split('/').nth(1) == Some("function") {
            return self.call(call_id, peer, request).await;
        }
        let (began, method) = (Instant::now(), request.method().clone());
        let counted = path_label(request.uri().path());
        let response = self.answer_other(call_id, peer, request).await;
        if let Some(path) = counted {
            self.metrics.count(path, &method, response.status(), began.elapsed());
        }
        response
    }

    async fn call(&self, call_id: CallId, peer: &Peer, request: Request<Incoming>) -> Response {
        let forward = |headers: &mut http::HeaderMap| {
            // A gateway has said for whom it asks; it is not one of those that a request went through.
            let peer = (!headers.contains_key(FORWARDED_FOR)).then_some(&peer.header);
            forward_request(headers, peer);
        };
        let call = match FunctionCall::read(call_id.clone(), request, forward) {
            Ok(call) => call,
            Err(answer) => return *answer,
        };
        match call.run(&*self.provider).await {
            Ok(mut response) => {
                response.headers_mut().remove(PROVIDER_ERROR);
                response
            }
            Err(error) => {
                let mut response = answer(&error, &call_id);
                response.headers_mut().insert(PROVIDER_ERROR, HeaderValue::from_static("true"));
                response
            }
        }
    }

    async fn answer_other(
        self: &Arc<Self>,
        call_id: CallId,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response {
        let result = match request.uri().path() {
            "/healthz" | "/metrics" => self.status(request.method(), request.uri().path()).await,
            path if path.split('/').nth(1) == Some("system") => {
                return self.system(&call_id, peer, request).await;
            }
            _ => Err(no_route()),
        };
        result.unwrap_or_else(|error| answer(&error, &call_id))
    }

    /// The only way to what is below `/system`, whatever the path says after that.
    async fn system(&self, call_id: &CallId, peer: &Peer, request: Request<Incoming>) -> Response {
        if let Err(error) = self.gate.admit(peer.address, request.uri().path(), request.headers()).await {
            return answer(&error, call_id);
        }
        let is_log = request.uri().path() == LOGS;
        let request = request.map(|incoming| TimedBody::of_request(incoming, Arc::default()));
        let answering = AbortOnDropHandle::new(self.control.spawn(self.system.clone().oneshot(request)));
        match answering.await {
            Ok(Ok(response)) => {
                let response = if is_log { response.map(|body| self.until_shutdown(body)) } else { response };
                response.map(|body| body.map_err(Into::into).boxed_unsync())
            }
            Ok(Err(never)) => match never {},
            Err(error) => answer(&Error::internal(error), call_id),
        }
    }

    /// Who follows a log would otherwise hold up draining.
    fn until_shutdown(&self, body: Body) -> Body {
        let draining = self.shutdown.clone().cancelled_owned();
        Body::from_stream(body.into_data_stream().take_until(draining))
    }

    /// Health and numbers, which are for everybody.
    async fn status(&self, method: &Method, path: &str) -> Result<Response> {
        match (path, method) {
            ("/healthz", &Method::GET | &Method::HEAD) => {
                if self.shutdown.is_cancelled() {
                    return Err(Error::Unavailable { message: "shutting down".into(), source: None });
                }
                self.provider.health().await.map(|()| Response::new(full("")))
            }
            ("/metrics", &Method::GET | &Method::HEAD) => {
                let registry = self.registry.clone();
                let scraping = AbortOnDropHandle::new(self.control.spawn(async move { scrape(&registry) }));
                scraping.await.map_err(Error::internal)?
            }
            ("/healthz" | "/metrics", _) => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                Ok(response)
            }
            _ => Err(no_route()),
        }
    }
}

/// A [`ProviderServer`] as one client sees it.
#[derive(Clone)]
pub struct ProviderService {
    parts: Arc<Parts>,
    peer: Peer,
}

impl Service<Request<Incoming>> for ProviderService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { parts, peer } = self.clone();
        Box::pin(async move { Ok(parts.answer(&peer, request).await) })
    }
}

/// What answers on the metrics port: `GET /metrics` and `GET /healthz`. Never touches a call, so that it can be served
/// from a thread of its own while functions keep all others busy.
#[derive(Clone)]
pub struct ProviderStatus(Arc<Parts>);

impl Service<Request<Incoming>> for ProviderStatus {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let parts = Arc::clone(&self.0);
        Box::pin(async move {
            let result = parts.status(request.method(), request.uri().path()).await;
            Ok(result.unwrap_or_else(|error| answer(&error, &CallId::new("metrics"))))
        })
    }
}
