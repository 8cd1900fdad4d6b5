//! A client of the gateway's API: the part of faas-cli's work that `fawn deploy` does, and what is ours.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, header::DATE, redirect};
use runtime_api::{
    DEFAULT_NAMESPACE, Deployment, FunctionName, FunctionSpec, ModuleCommand, Phase, StoredArtifact,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    config::{Environment, default_data_dir},
    credentials::{Credentials, is_this_machine},
    module_file::Module,
    terminal::printable,
    usage::Mistakes,
};

/// Where a gateway listens (`OpenFaaS`).
const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8080";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A deploy answers within 45 s, whatever the outcome.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest module over a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A log that is followed is asked for again after that.
const LONGEST_LOG: Duration = Duration::from_secs(24 * 3600);
/// Of an upload's address, as it is written there: a request's head has 64 KiB in all.
const MAX_COMMAND_BYTES: usize = 48 << 10;
/// Of what is read as a whole.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What is shown of a page that is no answer of a gateway.
const MAX_SHOWN_BYTES: usize = 2000;

/// Which gateway is asked, by a command that reads stack files or one that reads none.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArguments<const STACK: bool = true> {
    #[arg(long, short, global = true, value_name = "URL", help = help_of_gateway(STACK))]
    gateway: Option<String>,
    /// Where a gateway on this machine keeps its data, for its credentials
    #[arg(long, global = true, env = "FAWN_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl<const STACK: bool> ClientArguments<STACK> {
    /// A client of that gateway, with the credentials that are found for it.
    pub(crate) fn gateway(&self, of_stack: Option<&str>) -> Result<Gateway> {
        let environment = |name: &str| std::env::var(name).ok();
        let data_directory = self.data_dir.clone().unwrap_or_else(|| default_data_dir(&environment));
        let url = parse_gateway(&self.address(of_stack, &environment))?;
        Gateway::find(url, faas_cli_directory(&environment).as_deref(), &data_directory)
    }

    /// Whether the command line says which gateway it is, whatever a stack file says.
    pub(crate) fn names_gateway(&self) -> bool {
        self.gateway.is_some()
    }

    /// The address that is meant, as faas-cli finds it: what a stack file says by default counts as nothing said.
    pub(crate) fn address(&self, of_stack: Option<&str>, environment: Environment<'_>) -> String {
        let of_stack = of_stack.filter(|address| address.trim_end_matches('/') != DEFAULT_GATEWAY);
        let chosen = self.gateway.clone().or_else(|| of_stack.map(str::to_owned));
        let variable = || environment("OPENFAAS_URL").filter(|address| !address.is_empty());
        chosen.or_else(variable).unwrap_or_else(|| DEFAULT_GATEWAY.into())
    }
}

fn help_of_gateway(stack: bool) -> String {
    let of_stack = if stack { "that of the stack file if one is used, else " } else { "" };
    format!("The gateway [default: {of_stack}$OPENFAAS_URL, else {DEFAULT_GATEWAY}]")
}

/// Where faas-cli keeps logins.
fn faas_cli_directory(environment: Environment<'_>) -> Option<PathBuf> {
    if let Some(chosen) = environment("OPENFAAS_CONFIG").filter(|chosen| !chosen.is_empty()) {
        return Some(chosen.into());
    }
    if matches!(environment("CI").as_deref(), Some("true" | "1")) {
        return Some(".openfaas".into());
    }
    environment("HOME").map(|home| Path::new(&home).join(".openfaas"))
}

/// A gateway, and how to be let in.
pub(crate) struct Gateway {
    base: Url,
    http: Client,
    credentials: Option<Credentials>,
}

/// How a function fares.
pub(crate) enum State {
    Pending(String),
    Ready(Option<Deployment>),
    Failed(String),
}

/// The part of a function's status that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    available_replicas: u64,
    /// Other gateways than ours have none.
    deployment: Option<Deployment>,
}

impl Gateway {
    pub(crate) fn new(base: Url, credentials: Option<Credentials>) -> Result<Self> {
        Ok(Self { http: http_client(&base)?, base, credentials })
    }

    /// Finds the credentials for a gateway and makes a client of it.
    pub(crate) fn find(base: Url, faas_cli_directory: Option<&Path>, data_directory: &Path) -> Result<Self> {
        let credentials = Credentials::find(&base, faas_cli_directory, data_directory)?;
        Self::new(base, credentials)
    }

    /// Keeps a module with its command at the gateway, under an image name that a deploy can use.
    pub(crate) async fn store_artifact(&self, module: Module) -> Result<StoredArtifact> {
        let Module { bytes, command: ModuleCommand { args, env } } = module;
        let args = args.into_iter().map(|arg| ("arg", arg));
        let env = env.into_iter().map(|(name, value)| ("env", format!("{name}={value}")));
        let query: Vec<_> = args.chain(env).collect();
        let written = Url::parse_with_params("http://gateway/", &query)?;
        if written.query().is_some_and(|query| query.len() > MAX_COMMAND_BYTES) {
            bail!(
                "the image's arguments and environment are longer than {MAX_COMMAND_BYTES} bytes: push it instead"
            );
        }
        // Who is not let in is told so, before a long body is refused half-way.
        self.accepted(self.send(self.request(Method::GET, "system/info")).await?).await?;
        let mut request = self.request(Method::POST, "system/artifacts").timeout(UPLOAD_TIMEOUT);
        if !query.is_empty() {
            request = request.query(&query);
        }
        let response = self.send(request.header("content-type", "application/wasm").body(bytes)).await?;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            bail!(
                "{} takes no modules: push the file with `fawn push`, and deploy that reference",
                self.address()
            );
        }
        read_json(self.accepted(response).await?, "the gateway's answer to the upload").await
    }

    /// Updates a function, or deploys it where there is none, as faas-cli does.
    pub(crate) async fn deploy(&self, spec: &FunctionSpec) -> Result<()> {
        let response = self.send(self.request(Method::PUT, "system/functions").json(spec)).await?;
        let response = match response.status() {
            StatusCode::NOT_FOUND => {
                self.send(self.request(Method::POST, "system/functions").json(spec)).await?
            }
            _ => response,
        };
        self.accepted(response).await.map(drop)
    }

    /// How a function fares.
    pub(crate) async fn state(&self, function: &FunctionName) -> Result<State> {
        let path = format!("system/function/{}", function.name());
        let request = self.request(Method::GET, &path).query(&[("namespace", function.namespace())]);
        let response = self.accepted(self.send(request).await?).await?;
        let status: Status = read_json(response, "the gateway's status of the function").await?;
        Ok(match status.deployment {
            Some(Deployment { phase: Phase::Failed, reason, .. }) => State::Failed(printable(&reason)),
            Some(Deployment { phase: Phase::Pending, reason, .. }) => State::Pending(printable(&reason)),
            Some(deployment) => State::Ready(Some(deployment)),
            None if status.available_replicas > 0 => State::Ready(None),
            None => State::Pending("waiting for a replica".into()),
        })
    }

    /// What a route of the gateway's own answers. The last segments of its path are any text.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<T> {
        let response = self.send(self.to(method, segments)?.query(query)).await?;
        read_json(self.accepted(response).await?, "the gateway's answer").await
    }

    /// Has a route of the gateway's own do something.
    pub(crate) async fn tell(&self, method: Method, segments: &[&str]) -> Result<()> {
        self.accepted(self.send(self.to(method, segments)?).await?).await.map(drop)
    }

    /// A function's log from a moment on, as it is written.
    pub(crate) async fn follow_log(&self, function: &FunctionName, since: Timestamp) -> Result<Response> {
        let query = [
            ("name", function.name()),
            ("namespace", function.namespace()),
            ("since", &since.to_string()),
            ("follow", "true"),
        ];
        let request = self.request(Method::GET, "system/logs").query(&query).timeout(LONGEST_LOG);
        self.accepted(self.send(request).await?).await
    }

    /// What time it is at the gateway, to the second, if it says so (RFC 9110 §6.6.1).
    pub(crate) async fn time(&self) -> Result<Option<Timestamp>> {
        let response = self.accepted(self.send(self.request(Method::GET, "system/info")).await?).await?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(http_date))
    }

    /// A call of a function, without credentials: these are the gateway's, and not the function's.
    pub(crate) fn call(&self, method: Method, route: &str, function: &FunctionName) -> RequestBuilder {
        self.http.request(method, self.url(&format!("{route}/{}", called(function))))
    }

    fn to(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        let mut url = Url::parse(&self.url(""))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Ok(self.let_in(self.http.request(method, url)))
    }

    /// Where a function is called.
    pub(crate) fn function_url(&self, function: &FunctionName) -> String {
        self.url(&format!("function/{}", called(function)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.address())
    }

    fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.let_in(self.http.request(method, self.url(path)))
    }

    /// With the credentials that there are.
    fn let_in(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Some(credentials) => request.basic_auth(&credentials.user, Some(&credentials.password)),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|error| {
            let advice = if error.is_connect() {
                format!(
                    "no gateway answers at {}: start one with `fawn up`, or name it with --gateway",
                    self.address()
                )
            } else if error.is_timeout() {
                format!("the gateway at {} did not answer in time", self.address())
            } else {
                format!("the connection to the gateway at {} failed", self.address())
            };
            anyhow::Error::new(error.without_url()).context(advice)
        })
    }

    async fn accepted(&self, mut response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            let (base, here) = (self.address(), is_this_machine(&self.base));
            let login = format!("`faas-cli login -g {base} --password-stdin < FILE`");
            match (&self.credentials, here) {
                (Some(_), false) => {
                    bail!("the gateway at {base} does not accept the credentials; run {login}")
                }
                (None, false) => bail!("the gateway at {base} wants credentials; run {login}"),
                (given, true) => bail!(
                    "the gateway at {base} {}: name its data directory, which has the file basic-auth-password, \
                     with --data-dir, or run {login}",
                    if given.is_some() { "does not accept the credentials" } else { "wants credentials" }
                ),
            }
        }
        let text = beginning(&mut response, MAX_SHOWN_BYTES).await;
        bail!(
            "the gateway answered {status}: {}",
            if text.is_empty() { "no reason given" } else { text.as_str() }
        )
    }
}

/// A client of the server at an address. It follows no redirect: credentials and uploads are for that server alone.
pub(crate) fn http_client(base: &Url) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("fawn/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT);
    if base.scheme() == "http" {
        // Without TLS nothing is verified, and a machine without certificates is no obstacle.
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if is_this_machine(base) {
        builder = builder.no_proxy();
    }
    builder.build().context("no HTTPS client can be made")
}

/// Reads a body of at most so many bytes. Of one that is longer, or breaks off, the bytes so far are there.
pub(crate) async fn read_at_most(answer: &mut Response, most: usize, body: &mut Vec<u8>) -> Result<()> {
    while let Some(piece) = answer.chunk().await.context("it broke off")? {
        let room = most.saturating_sub(body.len());
        body.extend(piece.iter().take(room));
        if piece.len() > room {
            bail!("it is longer than {most} bytes, the limit");
        }
    }
    Ok(())
}

async fn read_json<T: DeserializeOwned>(mut answer: Response, what: &'static str) -> Result<T> {
    let mut body = Vec::new();
    read_at_most(&mut answer, MAX_ANSWER_BYTES, &mut body).await.context(what)?;
    // What is unknown is told as it was written.
    let read = serde_json::from_slice(&body).map_err(|error| printable(&error.to_string()));
    read.map_err(|error| anyhow!("{what} is not as expected: {error}"))
}

/// The first bytes of an answer's body that says what went wrong: as many as there are, since the status is what matters.
/// They steer no terminal.
pub(crate) async fn beginning(answer: &mut Response, most: usize) -> String {
    let mut body = Vec::new();
    let _ = read_at_most(answer, most, &mut body).await;
    let lines: Vec<_> = String::from_utf8_lossy(&body).trim().lines().map(printable).collect();
    lines.join("\n")
}

/// The form of `Date` that servers send is one of RFC 2822's (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    Some(rfc2822::parse(text).ok()?.timestamp())
}

/// What a function is called by.
fn called(function: &FunctionName) -> &str {
    if function.namespace() == DEFAULT_NAMESPACE { function.name() } else { function.as_str() }
}

/// A gateway's address as faas-cli takes it, with or without `http://`.
pub(crate) fn parse_gateway(text: &str) -> Result<Url, Mistakes> {
    // It is not shown: it ends in logs and shell histories.
    if text.contains('@') {
        let mistake =
            "the gateway's address has a user or password in it: give it without, and use `faas-cli login`";
        return Err(mistake.to_owned().into());
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let url = Url::parse(&full).ok().filter(usable);
    url.ok_or_else(|| format!("gateway {text:?} is not an address such as http://127.0.0.1:8080").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_faas_cli_takes_them() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://Faas.example.com/prefix/", "https://faas.example.com/prefix/"),
        ] {
            assert_eq!(parse_gateway(text).unwrap().as_str(), url);
        }
        for bad in ["", "ftp://host", "http://", "a b"] {
            assert!(parse_gateway(bad).is_err(), "{bad}");
        }
        for secret in
            ["http://me:hunter2@host", "me:hunter2@host:80", "ftp://me:hunt/er2@host", "https://hunter2@"]
        {
            let error = parse_gateway(secret).unwrap_err().to_string();
            assert!(error.contains("faas-cli login") && !error.contains("hunt"), "{error}");
        }
    }

    #[test]
    fn a_gateway_is_that_of_the_flag_else_of_the_stack_else_of_the_environment() {
        let address = |flag: Option<&str>, stack: Option<&str>, variable: &str| {
            let arguments: ClientArguments =
                ClientArguments { gateway: flag.map(str::to_owned), data_dir: None };
            arguments.address(stack, &|_| Some(variable.to_owned()))
        };
        assert_eq!(address(Some("flag"), Some("stack"), "variable"), "flag");
        assert_eq!(address(None, Some("stack"), "variable"), "stack");
        assert_eq!(address(None, Some("http://127.0.0.1:8080/"), "variable"), "variable");
        assert_eq!(address(None, None, ""), "http://127.0.0.1:8080");
    }

    #[test]
    fn a_server_s_date_is_read() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(date.to_string(), "1994-11-06T08:49:37Z");
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn the_default_that_is_told_is_the_command_s() {
        assert!(help_of_gateway(true).contains("stack file"));
        assert_eq!(
            help_of_gateway(false),
            "The gateway [default: $OPENFAAS_URL, else http://127.0.0.1:8080]"
        );
    }

    fn answer(status: u16, body: impl Into<reqwest::Body>) -> Response {
        http::Response::builder().status(status).body(body.into()).unwrap().into()
    }

    #[tokio::test]
    async fn what_others_wrote_is_bounded_and_steers_no_terminal() {
        // Installed already when another test of this process was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let gateway = Gateway::new(parse_gateway("g:1").unwrap(), None).unwrap();
        let refusal = async |body: String| gateway.accepted(answer(500, body)).await.unwrap_err().to_string();
        let told = refusal("\u{1b}]0;owned\u{7}first\nsecond\n".into()).await;
        assert_eq!(told, "the gateway answered 500 Internal Server Error:  ]0;owned first\nsecond");
        assert!(refusal("x".repeat(1 << 20)).await.len() < 2 * MAX_SHOWN_BYTES);
        let unknown = read_json::<Phase>(answer(200, "\"\u{7f}\""), "it").await.unwrap_err().to_string();
        assert!(unknown.contains("is not as expected") && !unknown.contains('\u{7f}'), "{unknown:?}");
    }

    #[tokio::test]
    async fn a_body_is_read_within_a_bound() {
        for (body, expected) in [("", true), ("1234", true), ("12345", false)] {
            let mut read = Vec::new();
            let whole = read_at_most(&mut answer(200, body), 4, &mut read).await;
            assert_eq!(whole.is_ok(), expected, "{body}");
            assert_eq!(read, &body.as_bytes()[..body.len().min(4)]);
        }
    }

    #[test]
    fn functions_are_called_by_name_and_by_namespace_where_it_matters() {
        // Installed already when another test of this process was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let gateway = |base: &str| Gateway::new(parse_gateway(base).unwrap(), None).unwrap();
        let name = |text| FunctionName::parse(text).unwrap();
        assert_eq!(gateway("http://g:1").function_url(&name("a")), "http://g:1/function/a");
        assert_eq!(gateway("http://g:1/p/").function_url(&name("a.dev")), "http://g:1/p/function/a.dev");
    }
}
