use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    middleware,
    routing::{get, post},
};
use http::{StatusCode, Uri};
use http_body_util::BodyExt;
use runtime_api::{
    DEFAULT_NAMESPACE, Error, FunctionName, FunctionSpec, FunctionStatus, ModuleCommand, Provider,
    ProviderInfo, Result, StoredArtifact,
};
use serde::Deserialize;

use crate::{Failure, answer_failures, json, no_route};

type Shared = State<Arc<dyn Provider>>;
type Answer<T> = Result<T, Failure>;

/// A query. Of a parameter that is repeated the last counts; unknown ones, such as `usage`, do not.
pub type Parameters = HashMap<String, String>;

/// Every route of a provider but calls (`OpenFaaS`), unprotected.
pub fn system_routes(provider: Arc<dyn Provider>) -> Router {
    Router::new()
        .route("/system/functions", get(list).post(deploy).put(update).delete(remove))
        .route("/system/function/{name}", get(status))
        .route("/system/scale-function/{name}", post(scale))
        .route("/system/scale-function/", post(scale))
        .route("/system/namespaces", get(namespaces))
        .route("/system/info", get(info))
        .route("/system/artifacts", post(store_artifact))
        .with_state(provider.clone())
        .merge(health_routes(provider))
        .fallback(async || Failure::from(no_route()))
        .layer(middleware::from_fn(answer_failures))
}

/// `/healthz`, which is for everybody.
pub fn health_routes(provider: Arc<dyn Provider>) -> Router {
    let routes = Router::new().route("/healthz", get(health)).with_state(provider);
    routes.layer(middleware::from_fn(answer_failures))
}

/// The functions of the namespace that the query names.
///
/// # Errors
/// As [`Provider::list`].
pub async fn list_functions(provider: &dyn Provider, query: &Parameters) -> Result<Vec<FunctionStatus>> {
    provider.list(first_of([namespace_of(query), DEFAULT_NAMESPACE])).await
}

/// Whether a path's segment can name a function; other segments are no route at all (`OpenFaaS`).
pub fn is_route_name(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

async fn list(State(provider): Shared, Query(query): Query<Parameters>) -> Answer<Json<Vec<FunctionStatus>>> {
    Ok(Json(list_functions(&*provider, &query).await?))
}

async fn deploy(State(provider): Shared, Query(query): Query<Parameters>, body: Body) -> Answer<StatusCode> {
    let spec = read_spec(&*provider, &query, body).await?;
    let function = qualified(&spec);
    provider.deploy(spec).await.map_err(|error| Failure::deploying(function, error))?;
    Ok(StatusCode::ACCEPTED)
}

async fn update(State(provider): Shared, Query(query): Query<Parameters>, body: Body) -> Answer<StatusCode> {
    let spec = read_spec(&*provider, &query, body).await?;
    let function = qualified(&spec);
    provider.update(spec).await.map_err(|error| Failure::deploying(function, error))?;
    Ok(StatusCode::ACCEPTED)
}

/// The body of a removal (`OpenFaaS` DeleteFunctionRequest).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Removal {
    function_name: String,
    namespace: String,
}

async fn remove(State(provider): Shared, Query(query): Query<Parameters>, body: Body) -> Answer<StatusCode> {
    let removal: Removal = json::read(body, &["functionName", "namespace"]).await?;
    if removal.function_name.is_empty() {
        return Err(Error::invalid("invalid-name", "functionName is required").into());
    }
    let namespace = first_of([&removal.namespace, namespace_of(&query)]);
    check_namespace(&*provider, namespace).await?;
    provider.remove(&function_name(&removal.function_name, namespace)?).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn status(
    State(provider): Shared,
    uri: Uri,
    Query(query): Query<Parameters>,
) -> Answer<Json<FunctionStatus>> {
    let function = named_by_path(&*provider, last_segment(&uri), namespace_of(&query)).await?;
    Ok(Json(provider.status(&function).await?))
}

/// The body of a scaling (`OpenFaaS` ScaleServiceRequest). Its clients leave out a zero.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Scaling {
    service_name: String,
    replicas: u64,
    namespace: String,
}

async fn scale(
    State(provider): Shared,
    uri: Uri,
    Query(query): Query<Parameters>,
    body: Body,
) -> Answer<StatusCode> {
    let scaling: Scaling = json::read(body, &["serviceName", "replicas", "namespace"]).await?;
    let name = first_of([last_segment(&uri), &scaling.service_name]);
    let namespace = first_of([&scaling.namespace, namespace_of(&query)]);
    let function = named_by_path(&*provider, name, namespace).await?;
    provider.scale(&function, scaling.replicas).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn namespaces(State(provider): Shared) -> Answer<Json<Vec<String>>> {
    Ok(Json(provider.namespaces().await?))
}

async fn info(State(provider): Shared) -> Answer<Json<ProviderInfo>> {
    Ok(Json(provider.info().await?))
}

/// The body is the module; the query says what it is started with: `arg=--fast&arg=x&env=NAME=VALUE`, in that order.
async fn store_artifact(
    State(provider): Shared,
    Query(query): Query<Vec<(String, String)>>,
    body: Body,
) -> Answer<Json<StoredArtifact>> {
    let command = command(query)?;
    Ok(Json(provider.store_artifact(body.map_err(Into::into).boxed_unsync(), command).await?))
}

fn command(query: Vec<(String, String)>) -> Result<ModuleCommand> {
    let mut command = ModuleCommand::default();
    for (parameter, value) in query {
        match (parameter.as_str(), value.split_once('=')) {
            ("arg", _) => command.args.push(value),
            ("env", Some((name, value))) => command.env.push((name.to_owned(), value.to_owned())),
            ("env", None) => {
                let message = format!("env {value:?} is not NAME=VALUE");
                return Err(Error::invalid("invalid-command", message));
            }
            _ => {
                let message = format!("{parameter:?} is no parameter of an upload: give arg or env");
                return Err(Error::invalid("invalid-command", message));
            }
        }
    }
    Ok(command)
}

async fn health(State(provider): Shared) -> Answer<()> {
    Ok(provider.health().await?)
}

pub(crate) const SPEC_FIELDS: [&str; 12] = [
    "service",
    "image",
    "namespace",
    "envProcess",
    "envVars",
    "constraints",
    "secrets",
    "labels",
    "annotations",
    "limits",
    "requests",
    "readOnlyRootFilesystem",
];

async fn read_spec(provider: &dyn Provider, query: &Parameters, body: Body) -> Answer<FunctionSpec> {
    let mut spec: FunctionSpec = json::read(body, &SPEC_FIELDS).await?;
    spec.namespace = first_of([&spec.namespace, namespace_of(query)]).to_owned();
    let known = check_namespace(provider, &spec.namespace).await;
    known.map_err(|error| Failure::deploying(qualified(&spec), error))?;
    Ok(spec)
}

/// What the log calls a function, whose name may not be valid.
fn qualified(spec: &FunctionSpec) -> String {
    format!("{}.{}", spec.service, first_of([&spec.namespace, DEFAULT_NAMESPACE]))
}

/// The function of a path. A name that no function can have is one that does not exist.
async fn named_by_path(provider: &dyn Provider, name: &str, namespace: &str) -> Result<FunctionName> {
    if !is_route_name(name) {
        return Err(no_route());
    }
    check_namespace(provider, namespace).await?;
    function_name(name, namespace).map_err(|error| Error::NotFound(error.to_string()))
}

fn function_name(name: &str, namespace: &str) -> Result<FunctionName> {
    if namespace.is_empty() { FunctionName::parse(name) } else { FunctionName::new(name, namespace) }
}

async fn check_namespace(provider: &dyn Provider, namespace: &str) -> Result<()> {
    if namespace.is_empty() || namespace == DEFAULT_NAMESPACE {
        return Ok(());
    }
    let namespaces = provider.namespaces().await?;
    if namespaces.iter().any(|one| one == namespace) {
        return Ok(());
    }
    let there_are = namespaces.join(", ");
    let text = format!("namespace {namespace:?} does not exist; there is {there_are}");
    Err(Error::invalid("no-such-namespace", text))
}

/// The name that ends a path, as it stands: nothing that needs percent-encoding names a function.
fn last_segment(uri: &Uri) -> &str {
    uri.path().rsplit_once('/').map_or("", |(_, name)| name)
}

fn namespace_of(query: &Parameters) -> &str {
    query.get("namespace").map_or("", String::as_str)
}

fn first_of([first, second]: [&str; 2]) -> &str {
    if first.is_empty() { second } else { first }
}
