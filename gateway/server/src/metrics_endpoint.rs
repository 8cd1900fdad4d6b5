use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::Service};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use runtime_api::{Body, CallId, Error, FunctionName, Provider, Result, empty, full};
use runtime_http::{answer, no_route};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{metrics::Metrics, queue_metrics::QueueMetrics, routes::check_serving};

/// How long a scrape waits for the provider's list. Prometheus gives a scrape ten seconds.
const LIST_TIME: Duration = Duration::from_secs(3);

/// What answers on the metrics port: `GET /metrics` and `GET /healthz` (`OpenFaaS`). Never touches a call, so that it
/// can be served from a thread of its own while functions keep all others busy.
#[derive(Clone)]
pub struct MetricsEndpoint {
    registry: Registry,
    metrics: Arc<Metrics>,
    queue: Option<Arc<QueueMetrics>>,
    provider: Arc<dyn Provider>,
    shutdown: CancellationToken,
}

impl MetricsEndpoint {
    pub(crate) fn new(
        registry: Registry,
        metrics: Arc<Metrics>,
        queue: Option<Arc<QueueMetrics>>,
        provider: Arc<dyn Provider>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { registry, metrics, queue, provider, shutdown }
    }

    async fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        let result = match (path, method) {
            ("/metrics", &Method::GET | &Method::HEAD) => self.scrape().await,
            ("/healthz", &Method::GET | &Method::HEAD) => {
                check_serving(&self.shutdown).map(|()| Response::new(full("OK")))
            }
            ("/metrics" | "/healthz", _) => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                Ok(response)
            }
            _ => Err(no_route()),
        };
        result.unwrap_or_else(|error| answer(&error, &CallId::new("metrics")))
    }

    async fn scrape(&self) -> Result<Response<Body>> {
        match timeout(LIST_TIME, self.refresh()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot list functions; telling the last known replicas"),
            Err(_) => warn!("listing functions takes too long; telling the last known replicas"),
        }
        if let Some(queue) = &self.queue {
            match timeout(LIST_TIME, queue.refresh()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(%error, "cannot count asynchronous calls; telling the last known numbers")
                }
                Err(_) => warn!("counting asynchronous calls takes too long; telling the last known numbers"),
            }
        }
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(Error::internal)?;
        let mut response = Response::new(full(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
        Ok(response)
    }

    /// Brings replicas up to date, and drops the series of functions that are gone.
    async fn refresh(&self) -> Result<()> {
        let mut gone = self.metrics.names();
        for namespace in self.provider.namespaces().await? {
            for status in self.provider.list(&namespace).await? {
                // What cannot be called here has no series; other providers have other rules.
                let Ok(function) = FunctionName::new(&status.name, &namespace) else { continue };
                self.metrics.found(&function, &status);
                if let Some(queue) = &self.queue {
                    queue.found(&function, &status.spec.annotations);
                }
                gone.remove(&function);
            }
        }
        for function in &gone {
            self.metrics.forget(function);
            if let Some(queue) = &self.queue {
                queue.forget(function);
            }
        }
        Ok(())
    }
}

impl Service<Request<Incoming>> for MetricsEndpoint {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let endpoint = self.clone();
        Box::pin(async move { Ok(endpoint.answer(request.method(), request.uri().path()).await) })
    }
}
