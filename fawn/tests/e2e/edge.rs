use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Once},
};

use reqwest::{Client, ClientBuilder, Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep_until},
};

use crate::process::{PATIENCE, Process, Said, eventually, run};

/// One `fawn up` of the real binary, or the gateway and the node of it as two processes, and how its user reaches it.
pub(crate) struct Edge {
    /// `fawn up`, or the gateway.
    pub(crate) process: Process,
    pub(crate) node: Option<Node>,
    pub(crate) gateway: String,
    pub(crate) metrics: String,
    home: Arc<TempDir>,
    http: Client,
    password: String,
}

/// A node apart, and where it is.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) provider: String,
    metrics: String,
}

/// How an [`Edge`] is to be started.
pub(crate) struct Plan {
    /// Whether gateway and node are two processes.
    apart: bool,
    home: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// What to do, in a mount namespace of its own, before the server starts.
    mounts: Option<String>,
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    env::var_os("FAWN_BIN").map_or_else(|| env!("CARGO_BIN_EXE_fawn").into(), PathBuf::from)
}

/// A client of the tests' own, which first needs to know how TLS is done.
pub(crate) fn client() -> ClientBuilder {
    install_tls();
    Client::builder().no_proxy()
}

impl Plan {
    pub(crate) fn new() -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn at(home: Arc<TempDir>) -> Self {
        // `scripts/test e2e` runs some tests over both.
        let apart = env::var_os("FAWN_TEST_APART").is_some();
        Self { apart, home, arguments: Vec::new(), environment: Vec::new(), mounts: None }
    }

    /// Gateway and node as two processes.
    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    /// `fawn up`, in any case.
    pub(crate) fn in_one(self) -> Self {
        Self { apart: false, ..self }
    }

    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn insecure_registry(self, host: &str) -> Self {
        self.argument("--insecure-registry").argument(host)
    }

    pub(crate) fn mounts(mut self, script: impl Into<String>) -> Self {
        self.mounts = Some(script.into());
        self
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A file beside the data directory.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn command(&self) -> Command {
        let mut command = self.subcommand("up", "127.0.0.1:0");
        command.args(&self.arguments);
        command
    }

    fn subcommand(&self, name: &str, listen: &str) -> Command {
        let mut command = match &self.mounts {
            None => Command::new(binary()),
            Some(script) => {
                let mut unshare = Command::new("unshare");
                unshare
                    .args(["--mount", "sh", "-ec", &format!("{script}\nexec \"$0\" \"$@\"")])
                    .arg(binary());
                unshare
            }
        };
        clean(&mut command, self.home.path());
        command.arg(name).args(["--listen", listen, "--metrics-listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.data_dir());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The node of a pair, which takes the arguments; its gateway is started with `gateway`.
    async fn start_node(&self, listen: &str) -> Node {
        let mut process = Process::spawn(self.subcommand("node", listen).args(&self.arguments));
        let (provider, metrics) = process.until(ready).await;
        Node { process, provider, metrics }
    }

    /// A gateway with these arguments, on the node's machine.
    pub(crate) fn gateway(&self, arguments: &[&str]) -> Command {
        let mut command = self.subcommand("gateway", "127.0.0.1:0");
        command.args(arguments);
        command
    }

    pub(crate) async fn start(self) -> Edge {
        let node = if self.apart { Some(self.start_node("127.0.0.1:0").await) } else { None };
        let mut command = match &node {
            Some(node) => self.gateway(&["--provider", &node.provider, "--upstream-timeout", "15m"]),
            None => self.command(),
        };
        let mut process = Process::spawn(&mut command);
        let (gateway, metrics) = process.until(ready).await;
        let mut data_dir = self.data_dir();
        if self.mounts.is_some() {
            // As the server sees it, whatever is mounted there.
            data_dir = PathBuf::from(format!("/proc/{}/root{}", process.pid, data_dir.display()));
        }
        let password = std::fs::read_to_string(data_dir.join("basic-auth-password")).unwrap_or_default();
        let http = client().timeout(PATIENCE).build().unwrap();
        Edge { process, node, gateway, metrics, home: self.home, http, password: password.trim().to_owned() }
    }

    /// Starts the server, and kills it at that moment, whether or not it serves by then.
    pub(crate) async fn killed_at(self, moment: Instant) {
        let mut process = Process::spawn(&mut self.command());
        sleep_until(moment).await;
        process.kill().await;
    }

    /// Starts what must not start.
    pub(crate) async fn refused(self) -> String {
        run(&mut self.command(), b"").await.fails()
    }
}

/// As `main` does, for the tests' own client.
pub(crate) fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

/// Nothing of the developer's own settings reaches a test.
pub(crate) fn clean(command: &mut Command, home: &Path) {
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("FAWN_")
            || name.starts_with("OPENFAAS_")
            || name.to_lowercase().ends_with("_proxy")
        {
            command.env_remove(&*name);
        }
    }
    command.env_remove("CI").env("HOME", home).env("DOCKER_CONFIG", home).env("OPENFAAS_CONFIG", home);
}

/// The addresses in the line that says it serves.
pub(crate) fn ready(output: &str) -> Option<(String, String)> {
    let line = output.lines().find_map(|line| line.strip_prefix("fawn ready "))?;
    let field = |name| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    Some((field("gateway=").or_else(|| field("provider="))?, field("metrics=")?))
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Plan::new().start().await
    }

    /// A plan for the same data directory, once this server has ended.
    pub(crate) fn again(&self) -> Plan {
        Plan::at(self.home.clone())
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A file beside the data directory.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        self.again().file(name, content)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.gateway))
    }

    /// A request of the administrator's.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).basic_auth("admin", Some(&self.password))
    }

    /// Deploys or replaces, with the requests that faas-cli makes: PUT, and POST after a 404.
    pub(crate) async fn deploy(&self, deployment: &Deployment) -> Reply {
        let answer = self.update(deployment).await;
        if answer.status == 404 { self.create(deployment).await } else { answer }
    }

    pub(crate) async fn create(&self, deployment: &Deployment) -> Reply {
        Reply::to(self.admin(Method::POST, "/system/functions").json(&deployment.0)).await
    }

    pub(crate) async fn update(&self, deployment: &Deployment) -> Reply {
        Reply::to(self.admin(Method::PUT, "/system/functions").json(&deployment.0)).await
    }

    pub(crate) async fn remove(&self, name: &str) -> Reply {
        Reply::to(self.admin(Method::DELETE, "/system/functions").json(&json!({ "functionName": name })))
            .await
    }

    /// Deploys, and waits until the function serves.
    #[track_caller]
    pub(crate) fn serve(&self, deployment: Deployment) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.deploy(&deployment).await;
            assert_eq!(answer.status, 202, "{caller}: {answer}");
            let name = deployment.0["service"].as_str().unwrap();
            eventually("the function is ready", async || {
                let status = self.status(name).await.json();
                assert_ne!(status["deployment"]["phase"], "failed", "{caller}: {status}");
                (status["deployment"]["phase"] == "ready").then_some(())
            })
            .await;
        }
    }

    pub(crate) async fn status(&self, name: &str) -> Reply {
        Reply::to(self.admin(Method::GET, &format!("/system/function/{name}"))).await
    }

    pub(crate) async fn list(&self) -> Vec<String> {
        let listed = Reply::to(self.admin(Method::GET, "/system/functions")).await.json();
        listed
            .as_array()
            .unwrap()
            .iter()
            .map(|function| function["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Uploads a module and gives the name to deploy it by.
    pub(crate) async fn upload(&self, module: Vec<u8>) -> String {
        let answer = self.upload_reply(module).await;
        assert!((200..300).contains(&answer.status), "{answer}");
        answer.json()["image"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn upload_reply(&self, module: Vec<u8>) -> Reply {
        Reply::to(self.admin(Method::POST, "/system/artifacts").body(module)).await
    }

    /// Calls `NAME` or `NAME/path?query`.
    pub(crate) async fn call(&self, function: &str, body: impl Into<reqwest::Body>) -> Reply {
        Reply::to(self.request(Method::POST, &format!("/function/{function}")).body(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    /// Starts the node of a pair again where it was, once it has ended.
    pub(crate) async fn restart_node(&mut self) {
        let listen = self.node.as_ref().unwrap().provider.strip_prefix("http://").unwrap().to_owned();
        self.node = Some(self.again().start_node(&listen).await);
    }

    /// The value of a series without labels, or the sum over all that have some.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let mut text = Reply::to(self.http.get(format!("{}/metrics", self.metrics))).await.text();
        if let Some(node) = &self.node {
            text += &Reply::to(self.http.get(format!("{}/metrics", node.metrics))).await.text();
        }
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let values: Vec<f64> = text.lines().filter_map(value).collect();
        assert!(!values.is_empty(), "no series {name} in\n{text}");
        values.iter().sum()
    }

    /// Runs another subcommand of the binary against this server.
    pub(crate) async fn fawn<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Said {
        run(&mut self.command(arguments), b"").await
    }

    /// Another subcommand of the binary, for this server.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(binary());
        clean(&mut command, self.home.path());
        command.args(arguments).env("OPENFAAS_URL", &self.gateway).env("FAWN_DATA_DIR", self.data_dir());
        command
    }

    pub(crate) async fn faas_cli(&self, arguments: &[&str]) -> Said {
        self.faas_cli_with(arguments, b"").await
    }

    pub(crate) async fn faas_cli_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = Command::new("faas-cli");
        clean(&mut command, self.home.path());
        command.args(arguments).env("OPENFAAS_URL", &self.gateway).current_dir(self.home.path());
        run(&mut command, input).await
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
        if let Some(node) = &mut self.node {
            node.process.kill().await;
        }
    }

    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        let ended = self.process.ended().await;
        if let Some(node) = &mut self.node {
            node.process.signal("TERM");
            let node_ended = node.process.ended().await;
            assert!(node_ended.success(), "{}", node.process.log());
        }
        ended
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(Node { process, .. }) = &self.node {
                eprintln!("--- what the node printed\n{}{}---", process.stdout(), process.log());
            }
            eprintln!("--- what the server printed\n{}{}---", self.process.stdout(), self.process.log());
        }
    }
}

/// The JSON of a deploy.
#[derive(Clone)]
pub(crate) struct Deployment(pub(crate) Value);

impl Deployment {
    pub(crate) fn of(name: &str, image: &str) -> Self {
        Self(json!({ "service": name, "image": image, "labels": {}, "annotations": {} }))
    }

    pub(crate) fn process(self, command: &str) -> Self {
        self.field("envProcess", json!(command))
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.0["envVars"][name] = json!(value);
        self
    }

    pub(crate) fn memory_limit(self, quantity: &str) -> Self {
        self.field("limits", json!({ "memory": quantity }))
    }

    pub(crate) fn field(mut self, name: &str, value: Value) -> Self {
        self.0[name] = value;
        self
    }
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    pub(crate) async fn try_to(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self { status, headers, body: response.bytes().await?.into() })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The body of an answer that is 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.status, 200, "{self}");
        self.text()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}
