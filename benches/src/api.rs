use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    connection::{Connection, request},
    server::Server,
    statistics::median_time,
};

/// Talks to a node of Fawn: its API and its functions.
pub(crate) struct Api {
    connection: Connection,
}

impl Api {
    pub(crate) fn connect(server: &Server) -> Result<Self> {
        Ok(Self { connection: Connection::open(server.address)? })
    }

    /// Uploads a module and deploys it, and waits until it serves.
    pub(crate) fn deploy(&mut self, name: &str, module: &[u8], env: Value) -> Result<()> {
        self.send(name, module, env, "POST")?;
        self.wait_until_ready(name).with_context(|| format!("{name} is deployed, but not ready"))
    }

    /// Has a function run another module, within the time that a deploy is waited for.
    pub(crate) fn update(&mut self, name: &str, module: &[u8]) -> Result<()> {
        self.send(name, module, json!({}), "PUT")
    }

    fn send(&mut self, name: &str, module: &[u8], env: Value, method: &str) -> Result<()> {
        let stored = self.connection.call(&request("POST", "/system/artifacts", module))?;
        let stored: Value = serde_json::from_slice(&stored)?;
        let image = stored.get("image").context("an artifact without an image")?;
        let spec = json!({ "service": name, "image": image, "envVars": env });
        self.connection.call(&request(method, "/system/functions", spec.to_string().as_bytes()))?;
        Ok(())
    }

    /// A deploy that compiles for long answers before it is done.
    fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let status = request("GET", &format!("/system/function/{name}"), b"");
        let begin = Instant::now();
        loop {
            let status: Value = serde_json::from_slice(&self.connection.call(&status)?)?;
            if status.get("availableReplicas").and_then(Value::as_u64) > Some(0) {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(300) {
                bail!("{status}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Calls a function, and gives its answer.
    pub(crate) fn call(&mut self, name: &str) -> Result<Vec<u8>> {
        self.connection.call(&request("GET", &format!("/function/{name}"), b""))
    }

    /// Calls a function, and gives how long that took.
    pub(crate) fn time_call(&mut self, name: &str) -> Result<Duration> {
        let request = request("GET", &format!("/function/{name}"), b"");
        let sent = Instant::now();
        self.connection.call(&request)?;
        Ok(sent.elapsed())
    }

    /// What a call takes when others were just before it.
    pub(crate) fn time_warm_call(&mut self, name: &str) -> Result<Duration> {
        let calls: Result<Vec<_>> = (0..20).map(|_| self.time_call(name)).collect();
        median_time(calls?)
    }
}
