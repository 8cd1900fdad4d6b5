use std::{borrow::Cow, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, Method, Request, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};
use http_body::Body as _;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use runtime_api::{
    Body, Deployed, Error, FunctionName, FunctionSpec, FunctionStatus, FunctionUsage, Invocation, LogQuery,
    LogStream, ModuleCommand, Namespace, Provider, ProviderInfo, Response, Result, SecretName, SecretValue,
    StoredArtifact, empty,
};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::{
    CALL_ID, Credentials, Introduction, ProviderUrl, TimedBody,
    answers::{self, PROVIDER_ERROR},
    headers::strip_hop_by_hop,
    log_lines,
    query::{self, Query},
    routes::{DEPLOYMENT, PENDING, Removal, Scaling},
    secrets::{Listed, SecretBody},
    status::NO_SUCH_NAMESPACE,
    wire::Wire,
};

/// Who it is and whether it is well is asked by those who wait for the answer.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// Enough for the longest list.
const READ_TIME: Duration = Duration::from_secs(10);
/// The largest module over a slow line.
const UPLOAD_TIME: Duration = Duration::from_secs(10 * 60);

/// What an [`HttpProvider`] is told.
#[derive(Clone, Debug)]
pub struct HttpProviderConfig {
    /// Where the provider is.
    pub url: ProviderUrl,
    /// What it asks for; never sent with a call.
    pub credentials: Option<Credentials>,
    /// How long a call may take, answer and all, and a change of what is deployed (`OpenFaaS`: `upstream_timeout`).
    pub call_timeout: Duration,
    /// How many connections are kept that nobody uses, in all.
    pub max_idle_connections: usize,
    /// How many runtimes it is called from: each has connections of its own, and those beyond share some.
    pub runtimes: NonZeroUsize,
    /// What `User-Agent` says where the client of a call sent none.
    pub user_agent: HeaderValue,
}

/// A provider at the other end of a network: ours, or any that `OpenFaaS` gateways can use.
///
/// Dropping an operation, or the body of an answer, closes its connection, and that cancels it there.
pub struct HttpProvider {
    wire: Wire,
    call_timeout: Duration,
    introduction: Arc<Introduction>,
}

/// Marks an answer to a call, among its extensions, that may be somebody else's provider's own: it failed, and nothing
/// tells whether there is such a function.
#[derive(Clone, Copy, Debug)]
pub struct Unattributed;

impl HttpProvider {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid` when the credentials cannot be sent.
    pub fn new(config: HttpProviderConfig) -> Result<Self> {
        let call_timeout = config.call_timeout;
        Ok(Self { wire: Wire::new(config)?, call_timeout, introduction: Arc::default() })
    }

    /// Whether it is ours, as far as that is known: who asks by this also asks for it.
    pub fn introduction(&self) -> Arc<Introduction> {
        self.introduction.clone()
    }

    /// A change, whose answer says nothing more.
    async fn change(&self, method: Method, route: &str, body: &impl Serialize) -> Result<()> {
        let answer = self.wire.send_json(method, route, body, self.call_timeout).await?;
        answers::granted(answer).await.map(drop)
    }

    async fn deploy_by(&self, method: Method, spec: &FunctionSpec) -> Result<Deployed> {
        let answer = self.wire.send_json(method, "/system/functions", spec, self.call_timeout).await?;
        let answer = answers::granted(answer).await?;
        // Other providers than ours do not say how far they came when they accept.
        let ready = answer.headers().get(DEPLOYMENT).is_some_and(|deployment| deployment != PENDING);
        Ok(if ready { Deployed::Ready } else { Deployed::Pending })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, route: &str, within: Duration) -> Result<T> {
        self.wire.get_json(route, within).await
    }

    /// Whether it is known by then to be ours.
    async fn is_ours(&self, deadline: Instant) -> bool {
        matches!(timeout_at(deadline, self.introduction.is_ours(self)).await, Ok(Ok(true)))
    }
}

#[async_trait]
impl Provider for HttpProvider {
    async fn deploy(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.deploy_by(Method::POST, &spec).await
    }

    async fn update(&self, spec: FunctionSpec) -> Result<Deployed> {
        self.deploy_by(Method::PUT, &spec).await
    }

    /// The namespace goes into body and query: providers look at one of them (`OpenFaaS`).
    async fn remove(&self, function: &FunctionName) -> Result<()> {
        let route = Query::new("/system/functions").and("namespace", function.namespace()).route();
        let removal =
            Removal { function_name: function.name().to_owned(), namespace: function.namespace().to_owned() };
        self.change(Method::DELETE, &route, &removal).await
    }

    async fn list(&self, namespace: &str) -> Result<Vec<FunctionStatus>> {
        let route = Query::new("/system/functions").and("namespace", namespace).route();
        let mut all: Vec<FunctionStatus> = self.get(&route, READ_TIME).await?;
        for status in &mut all {
            fill_namespace(status, namespace);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    async fn status(&self, function: &FunctionName) -> Result<FunctionStatus> {
        let route = format!("/system/function/{}", function.name());
        let route = Query::new(&route).and("namespace", function.namespace()).and("usage", "false").route();
        let mut status = self.get(&route, READ_TIME).await.map_err(of_function)?;
        fill_namespace(&mut status, function.namespace());
        Ok(status)
    }

    async fn usage(&self, function: &FunctionName) -> Result<Option<FunctionUsage>> {
        let route = format!("/system/function/{}", function.name());
        let route = Query::new(&route).and("namespace", function.namespace()).and("usage", "1").route();
        let status: FunctionStatus = self.get(&route, READ_TIME).await.map_err(of_function)?;
        Ok(status.usage)
    }

    /// The namespace goes into body and query, as with [`Provider::remove`].
    async fn scale(&self, function: &FunctionName, replicas: u64) -> Result<()> {
        let route = format!("/system/scale-function/{}", function.name());
        let route = Query::new(&route).and("namespace", function.namespace()).route();
        let scaling = Scaling {
            service_name: function.name().to_owned(),
            replicas,
            namespace: function.namespace().to_owned(),
        };
        self.change(Method::POST, &route, &scaling).await.map_err(of_function)
    }

    async fn invoke(&self, invocation: Invocation) -> Result<Response> {
        let Invocation { function, call_id, request } = invocation;
        let deadline = Instant::now() + self.call_timeout;
        let (mut parts, body) = request.into_parts();
        if has_dot_segments(parts.uri.path()) && !self.is_ours(deadline).await {
            let message = "the path has a segment . or .., which may lead out of the function: leave it out";
            return Err(Error::invalid("invalid-path", message));
        }
        let rest = parts.uri.path_and_query().map_or("/", |rest| rest.as_str());
        parts.uri = self.wire.url().route(&format!("/function/{function}{rest}"))?;
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(HOST);
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Else the body of a method that has none as a rule would not be sent. There is one framing (RFC 9112 §6.2).
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // Whatever the client speaks: that is about its own connection.
        parts.version = Version::HTTP_11;
        let call_id = HeaderValue::from_str(call_id.as_str()).map_err(Error::internal)?;
        parts.headers.insert(CALL_ID, call_id);
        let answer = self.wire.send(Request::from_parts(parts, body), deadline).await?;
        let attributed = answer.status().is_success() || self.is_ours(deadline).await;
        // Our node lets no function's answer say so; somebody else's provider may.
        if attributed && !answer.status().is_success() && answer.headers().contains_key(PROVIDER_ERROR) {
            return Err(answers::refusal(answer).await);
        }
        let (mut parts, body) = answer.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(PROVIDER_ERROR);
        if !attributed {
            parts.extensions.insert(Unattributed);
        }
        Ok(Response::from_parts(parts, TimedBody::of_answer(body, deadline).boxed_unsync()))
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.get("/system/namespaces", READ_TIME).await?;
        names.sort();
        // faasd may name one twice (OpenFaaS).
        names.dedup();
        Ok(names)
    }

    async fn namespace(&self, name: &str) -> Result<Namespace> {
        self.get(&namespace_route(name), READ_TIME).await
    }

    async fn create_namespace(&self, namespace: Namespace) -> Result<()> {
        self.change(Method::POST, "/system/namespace/", &namespace).await
    }

    async fn update_namespace(&self, namespace: Namespace) -> Result<()> {
        self.change(Method::PUT, &namespace_route(&namespace.name), &namespace).await
    }

    async fn remove_namespace(&self, name: &str) -> Result<()> {
        // Without this mark some providers do not take it for a namespace of functions (OpenFaaS).
        let mark = || [("openfaas".to_owned(), "1".to_owned())].into();
        let namespace = Namespace { name: name.to_owned(), labels: mark(), annotations: mark() };
        self.change(Method::DELETE, &namespace_route(name), &namespace).await
    }

    async fn secrets(&self, namespace: &str) -> Result<Vec<SecretName>> {
        let route = Query::new("/system/secrets").and("namespace", namespace).route();
        let listed: Vec<Listed> = self.get(&route, READ_TIME).await?;
        let names = listed.iter().map(|secret| {
            let of = if secret.namespace.is_empty() { namespace } else { &secret.namespace };
            SecretName::new(&secret.name, of)
        });
        // Somebody else's provider may have other rules; the rest of its secrets can be told all the same.
        let told = |error: &Error| warn!(%error, "a secret of the provider's is left out");
        let mut names: Vec<SecretName> = names.filter_map(|name| name.inspect_err(told).ok()).collect();
        names.sort();
        Ok(names)
    }

    async fn create_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.change(Method::POST, "/system/secrets", &secret_body(name, Some(&value))).await
    }

    async fn update_secret(&self, name: &SecretName, value: SecretValue) -> Result<()> {
        self.change(Method::PUT, "/system/secrets", &secret_body(name, Some(&value))).await
    }

    /// The namespace goes into body and query, as with [`Provider::remove`].
    async fn remove_secret(&self, name: &SecretName) -> Result<()> {
        let route = Query::new("/system/secrets").and("namespace", name.namespace()).route();
        self.change(Method::DELETE, &route, &secret_body(name, None)).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        let request = self.wire.request(Method::GET, &query::of_logs(&query), empty())?;
        let answer = self.wire.send(request, Instant::now() + READ_TIME).await?;
        Ok(log_lines::of(answers::granted(answer).await?.into_body()))
    }

    async fn store_artifact(&self, module: Body, command: ModuleCommand) -> Result<StoredArtifact> {
        let request = self.wire.request(Method::POST, &query::of_command(&command), module)?;
        let deadline = Instant::now() + UPLOAD_TIME;
        let answer = self.wire.send(request, deadline).await?;
        answers::json(answers::granted(answer).await?, deadline).await
    }

    async fn info(&self) -> Result<ProviderInfo> {
        self.get("/system/info", PROBE_TIME).await
    }

    async fn health(&self) -> Result<()> {
        let request = self.wire.request(Method::GET, "/healthz", empty())?;
        answers::granted(self.wire.send(request, Instant::now() + PROBE_TIME).await?).await.map(drop)
    }
}

fn namespace_route(name: &str) -> String {
    format!("/system/namespace/{}", query::encoded(name))
}

/// There is no function where there is no namespace.
fn of_function(error: Error) -> Error {
    match error {
        Error::Invalid { code, message } if code == NO_SUCH_NAMESPACE => Error::NotFound(message),
        error => error,
    }
}

/// Whether a path has segments that lead elsewhere for servers that decode it before they look (RFC 3986 §5.2.4).
fn has_dot_segments(path: &str) -> bool {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

/// Providers may leave out the namespace that was asked for.
fn fill_namespace(status: &mut FunctionStatus, namespace: &str) {
    if status.spec.namespace.is_empty() {
        namespace.clone_into(&mut status.spec.namespace);
    }
}

fn secret_body(name: &SecretName, value: Option<&SecretValue>) -> SecretBody {
    SecretBody {
        name: name.name().to_owned(),
        namespace: name.namespace().to_owned(),
        value: String::new(),
        raw_value: value.map_or_else(String::new, |value| STANDARD.encode(value.expose())),
    }
}
