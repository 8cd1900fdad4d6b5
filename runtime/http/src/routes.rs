use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    middleware,
    routing::{MethodRouter, get, post},
};
use http::{HeaderName, StatusCode, Uri};
use http_body_util::BodyExt;
use runtime_api::{
    DEFAULT_NAMESPACE, Deployed, Error, FunctionName, FunctionSpec, FunctionStatus, ModuleCommand, Provider,
    ProviderInfo, Result, StoredArtifact,
};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, answer_failures, json,
    logs::{self, is_true},
    namespaces, no_route, secrets,
    status::NO_SUCH_NAMESPACE,
};

pub(crate) type Shared = State<Arc<dyn Provider>>;
pub(crate) type Answer<T> = Result<T, Failure>;

/// A query. Of a parameter that is repeated the last counts; unknown ones do not.
pub type Parameters = HashMap<String, String>;

/// The paths of all routes of a provider but calls (`OpenFaaS`).
pub const PATHS: [&str; 11] = [
    "/system/functions",
    "/system/function/{name}",
    "/system/scale-function/{name}",
    "/system/scale-function/",
    "/system/secrets",
    "/system/namespaces",
    "/system/namespace/",
    "/system/namespace/{namespace}",
    "/system/logs",
    "/system/info",
    "/system/artifacts",
];

/// What answers at one of [`PATHS`].
fn at(path: &str) -> MethodRouter<Arc<dyn Provider>> {
    match path {
        "/system/functions" => get(list).post(deploy).put(update).delete(remove),
        "/system/function/{name}" => get(status),
        "/system/scale-function/{name}" | "/system/scale-function/" => post(scale),
        "/system/secrets" => {
            get(secrets::list).post(secrets::create).put(secrets::update).delete(secrets::remove)
        }
        "/system/namespaces" => get(namespaces::list),
        "/system/namespace/" | "/system/namespace/{namespace}" => {
            let one = get(namespaces::status).post(namespaces::create);
            one.put(namespaces::update).delete(namespaces::remove)
        }
        "/system/logs" => get(logs::read),
        "/system/info" => get(info),
        "/system/artifacts" => post(store_artifact),
        _ => MethodRouter::new(),
    }
}

/// Every route of a provider but calls (`OpenFaaS`), unprotected.
pub fn system_routes(provider: Arc<dyn Provider>) -> Router {
    let routes = PATHS.iter().fold(Router::new(), |routes, path| routes.route(path, at(path)));
    routes
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

async fn deploy(State(provider): Shared, Query(query): Query<Parameters>, body: Body) -> Answer<Accepted> {
    let spec = read_spec(&*provider, &query, body).await?;
    let function = qualified(&spec);
    let deployed = provider.deploy(spec).await;
    deployed.map(accepted).map_err(|error| Failure::deploying(function, error))
}

async fn update(State(provider): Shared, Query(query): Query<Parameters>, body: Body) -> Answer<Accepted> {
    let spec = read_spec(&*provider, &query, body).await?;
    let function = qualified(&spec);
    let deployed = provider.update(spec).await;
    deployed.map(accepted).map_err(|error| Failure::deploying(function, error))
}

/// How far a deploy came that was accepted (ours).
pub(crate) const DEPLOYMENT: HeaderName = HeaderName::from_static("x-fawn-deployment");
pub(crate) const PENDING: &str = "pending";
type Accepted = (StatusCode, [(HeaderName, &'static str); 1]);

fn accepted(deployed: Deployed) -> Accepted {
    let phase = match deployed {
        Deployed::Ready => "ready",
        Deployed::Pending => PENDING,
    };
    (StatusCode::ACCEPTED, [(DEPLOYMENT, phase)])
}

/// The body of a removal (`OpenFaaS` DeleteFunctionRequest).
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Removal {
    pub(crate) function_name: String,
    pub(crate) namespace: String,
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
    let mut status = provider.status(&function).await?;
    if query.get("usage").is_some_and(|usage| is_true(usage)) {
        status.usage = provider.usage(&function).await?;
    }
    Ok(Json(status))
}

/// The body of a scaling (`OpenFaaS` ScaleServiceRequest). Its clients leave out a zero.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Scaling {
    pub(crate) service_name: String,
    pub(crate) replicas: u64,
    pub(crate) namespace: String,
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

/// For everybody, whom it does not concern where the provider is.
async fn health(State(provider): Shared) -> Answer<()> {
    let health = provider.health().await;
    Ok(health.map_err(|error| match error {
        error @ Error::Unreachable { .. } => {
            Error::unreachable("the provider does not answer; the log says more", error)
        }
        error => error,
    })?)
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

pub(crate) fn function_name(name: &str, namespace: &str) -> Result<FunctionName> {
    if namespace.is_empty() { FunctionName::parse(name) } else { FunctionName::new(name, namespace) }
}

pub(crate) async fn check_namespace(provider: &dyn Provider, namespace: &str) -> Result<()> {
    if namespace.is_empty() || namespace == DEFAULT_NAMESPACE {
        return Ok(());
    }
    let namespaces = provider.namespaces().await?;
    if namespaces.iter().any(|one| one == namespace) {
        return Ok(());
    }
    let there_are = namespaces.join(", ");
    let text = format!("namespace {namespace:?} does not exist; there is {there_are}");
    Err(Error::invalid(NO_SUCH_NAMESPACE, text))
}

/// The name that ends a path, as it stands: nothing that needs percent-encoding names a function.
pub(crate) fn last_segment(uri: &Uri) -> &str {
    uri.path().rsplit_once('/').map_or("", |(_, name)| name)
}

pub(crate) fn namespace_of(query: &Parameters) -> &str {
    query.get("namespace").map_or("", String::as_str)
}

pub(crate) fn first_of([first, second]: [&str; 2]) -> &str {
    if first.is_empty() { second } else { first }
}
