use std::{collections::BTreeMap, env::consts::ARCH, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{Method, StatusCode, Uri};
use runtime_api::{Error, FunctionName, FunctionStatus, Provider, ProviderInfo, Result, VersionInfo};
use runtime_http::{Failure, answer_failures, health_routes, list_functions, no_route, system_routes};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::warn;

use crate::metrics::Metrics;

/// What the routes need that are the gateway's own, in place of the provider's or before them.
#[derive(Clone)]
pub(crate) struct Backend {
    provider: Arc<dyn Provider>,
    metrics: Arc<Metrics>,
    version: VersionInfo,
    shutdown: CancellationToken,
    of_provider: Router,
}

impl Backend {
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        metrics: Arc<Metrics>,
        version: VersionInfo,
        shutdown: CancellationToken,
    ) -> Self {
        let of_provider = system_routes(Arc::clone(&provider));
        Self { provider, metrics, version, shutdown, of_provider }
    }

    /// For those who have shown their credentials.
    pub(crate) fn protected_routes(&self) -> Router {
        Router::new()
            .route("/system/functions", any(functions))
            .route("/system/info", get(info))
            .route("/system/logs", get(async || StatusCode::NOT_IMPLEMENTED))
            .fallback_service(self.of_provider.clone())
            .layer(middleware::from_fn(answer_failures))
            .with_state(self.clone())
    }

    /// For everybody.
    pub(crate) fn open_routes(&self) -> Router {
        health_routes(Arc::clone(&self.provider))
            .layer(middleware::from_fn_with_state(self.shutdown.clone(), while_serving))
            .route(
                "/",
                get(async || "Fawn: functions are at /function/NAME, the OpenFaaS API is at /system\n"),
            )
            .fallback(async || Failure::from(no_route()))
            .layer(middleware::from_fn(answer_failures))
    }
}

/// Who sends requests here asks for health, and is to send them elsewhere from the moment that shutdown begins.
pub(crate) fn check_serving(shutdown: &CancellationToken) -> Result<()> {
    if shutdown.is_cancelled() {
        return Err(Error::Unavailable { message: "shutting down".into(), source: None });
    }
    Ok(())
}

async fn while_serving(
    State(shutdown): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    check_serving(&shutdown)?;
    Ok(next.run(request).await)
}

async fn functions(State(backend): State<Backend>, request: Request) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => list(&backend, request.uri()).await.into_response(),
        _ => backend.of_provider.oneshot(request).await.into_response(),
    }
}

/// The provider's list, with calls counted here.
async fn list(backend: &Backend, uri: &Uri) -> Result<Json<Vec<FunctionStatus>>, Failure> {
    let query =
        Query::try_from_uri(uri).map_err(|error| Error::invalid("invalid-query", error.to_string()))?;
    let mut functions = list_functions(&*backend.provider, &query).await?;
    for status in &mut functions {
        let name = FunctionName::new(&status.name, &status.spec.namespace)?;
        status.invocation_count = backend.metrics.completed(&name);
    }
    Ok(Json(functions))
}

/// What `/system/info` tells (`OpenFaaS` GatewayInfo).
#[derive(Serialize)]
struct Info {
    provider: ProviderInfo,
    version: VersionInfo,
    arch: &'static str,
}

/// Always all of it: faas-cli fails on a part that is missing.
async fn info(State(backend): State<Backend>) -> Json<Info> {
    let provider = backend.provider.info().await.unwrap_or_else(|error| {
        warn!(%error, "the provider does not say who it is");
        let unknown = || "unknown".to_owned();
        let version = VersionInfo { sha: unknown(), release: unknown() };
        ProviderInfo { provider: unknown(), version, orchestration: unknown(), details: BTreeMap::new() }
    });
    Json(Info { provider, version: backend.version, arch: ARCH })
}
