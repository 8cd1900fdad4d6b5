use std::{collections::BTreeMap, env::consts::ARCH, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{Method, StatusCode, Uri, header::CONTENT_TYPE};
use runtime_api::{Error, FunctionName, FunctionStatus, Provider, ProviderInfo, Result, VersionInfo};
use runtime_http::{Failure, answer_failures, health_routes, list_functions, no_route, system_routes};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::warn;

use crate::{
    FunctionStore,
    alert::Alerts,
    logs::{LogsServer, logs},
    metrics::Metrics,
    openapi, store,
};

/// What the routes need that are the gateway's own, in place of the provider's or before them.
#[derive(Clone)]
pub(crate) struct Backend {
    provider: Arc<dyn Provider>,
    metrics: Arc<Metrics>,
    alerts: Arc<Alerts>,
    version: VersionInfo,
    pub(crate) shutdown: CancellationToken,
    pub(crate) of_provider: Router,
    /// Where logs are read from, if that is not the provider.
    pub(crate) logs_server: Option<LogsServer>,
}

impl Backend {
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        metrics: Arc<Metrics>,
        version: VersionInfo,
        shutdown: CancellationToken,
        logs_server: Option<LogsServer>,
    ) -> Self {
        let of_provider = system_routes(Arc::clone(&provider));
        Self { provider, metrics, alerts: Arc::default(), version, shutdown, of_provider, logs_server }
    }

    /// For those who have shown their credentials.
    pub(crate) fn protected_routes(&self) -> Router {
        Router::new()
            .route("/system/functions", any(functions))
            .route("/system/info", get(info))
            .route("/system/alert", post(alert))
            .route("/system/logs", get(logs))
            .fallback_service(self.of_provider.clone())
            .layer(middleware::from_fn(answer_failures))
            .with_state(self.clone())
    }

    /// For everybody.
    pub(crate) fn open_routes(&self, store: Option<FunctionStore>) -> Router {
        let of_store = Router::new().route("/store/functions.json", get(store::list)).with_state(store);
        health_routes(Arc::clone(&self.provider))
            .layer(middleware::from_fn_with_state(self.shutdown.clone(), while_serving))
            .route(
                "/",
                get(async || "Fawn: functions are at /function/NAME, the OpenFaaS API is at /system, told by /openapi.json\n"),
            )
            .route("/openapi.json", get(openapi::document))
            .merge(of_store)
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
        // One whose name only other providers allow cannot be called here.
        let name = FunctionName::new(&status.name, &status.spec.namespace);
        status.invocation_count = name.map_or(0.0, |name| backend.metrics.completed(&name));
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

/// A line for each function that could not be scaled, by number (`OpenFaaS`).
async fn alert(State(backend): State<Backend>, body: Body) -> Result<Response, Failure> {
    let failed = backend.alerts.scale(&*backend.provider, body).await?;
    if failed.is_empty() {
        return Ok(Response::default());
    }
    let lines = failed.iter().enumerate().map(|(number, error)| format!("[{number}] {error}\n"));
    let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((StatusCode::INTERNAL_SERVER_ERROR, kind, lines.collect::<String>()).into_response())
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
