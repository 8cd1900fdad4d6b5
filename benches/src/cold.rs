use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    HELLO,
    connection::{Connection, request},
    process::{self, Memory},
    report::{Table, median_time, time},
    server::Server,
};

/// How often a function is called to see what a warm call takes.
const WARM_CALLS: usize = 20;

/// Talks to a node of Fawn: its API and its functions.
pub(crate) struct Fawn {
    connection: Connection,
}

impl Fawn {
    pub(crate) async fn connect(server: &Server) -> Result<Self> {
        Ok(Self { connection: Connection::open(server.address).await? })
    }

    /// Uploads a module and deploys it, and waits until it serves.
    pub(crate) async fn deploy(&mut self, name: &str, module: &[u8]) -> Result<()> {
        let stored: Value = self.ask("/system/artifacts", module).await?;
        let image = stored.get("image").and_then(Value::as_str).context("an artifact without an image")?;
        let spec = json!({ "service": name, "image": image }).to_string();
        self.ask("/system/functions", spec.as_bytes()).await?;
        Ok(())
    }

    async fn ask(&mut self, path: &str, body: &[u8]) -> Result<Value> {
        let status = self.connection.call(&request("POST", path, body)).await?;
        if !(200..300).contains(&status) {
            bail!("{path} answers {status}: {}", String::from_utf8_lossy(&self.connection.body));
        }
        Ok(serde_json::from_slice(&self.connection.body).unwrap_or_default())
    }

    /// Calls a function that says hello, and gives how long that took.
    async fn hello(&mut self, name: &str) -> Result<Duration> {
        let request = request("GET", &format!("/function/{name}"), b"");
        let sent = Instant::now();
        self.connection.expect(&request, Some(HELLO.len())).await?;
        Ok(sent.elapsed())
    }

    /// The first call of each of the functions; and of each, a warm call.
    async fn first_calls(&mut self, names: &[String]) -> Result<(Vec<Duration>, Vec<Duration>)> {
        let (mut first, mut warm) = (Vec::new(), Vec::new());
        for name in names {
            first.push(self.hello(name).await?);
        }
        for name in names {
            let mut calls = Vec::new();
            for _ in 0..WARM_CALLS {
                calls.push(self.hello(name).await?);
            }
            warm.push(median_time(calls));
        }
        Ok((first, warm))
    }
}

/// Deploys many distinct functions, and sees what deploys, first calls and memory cost, before and after a restart.
pub(crate) async fn measure(
    program: &Path,
    function: &Path,
    folder: &Path,
    kind: &str,
    module: &[u8],
    count: u32,
) -> Result<Table> {
    let data_dir = folder.join(format!("data-{kind}"));
    let names: Vec<_> = (0..count).map(|at| format!("bench-{at}")).collect();

    let server = Server::fawn(program, function, &data_dir).await?;
    let mut fawn = Fawn::connect(&server).await?;
    fawn.hello("hello").await?;
    let idle = process::memory(server.pid)?;
    let mut deploys = Vec::new();
    for (name, at) in names.iter().zip(0..) {
        let begin = Instant::now();
        fawn.deploy(name, &distinct(module, at)).await?;
        deploys.push(begin.elapsed());
    }
    let (first_deployed, warm_deployed) = fawn.first_calls(&names).await?;
    let deployed = process::memory(server.pid)?;
    drop(fawn);
    server.stop().await?;

    let begin = Instant::now();
    let server = Server::fawn(program, function, &data_dir).await?;
    let start = begin.elapsed();
    let mut fawn = Fawn::connect(&server).await?;
    fawn.hello("hello").await?;
    let restarted = process::memory(server.pid)?;
    let (first_restarted, warm_restarted) = fawn.first_calls(&names).await?;
    let loaded = process::memory(server.pid)?;
    drop(fawn);
    server.stop().await?;

    let each = |after: Memory, before: Memory| {
        format!("{:.1} KiB", (after.private as f64 - before.private as f64) / f64::from(count) / 1024.0)
    };
    let mut table = Table::new("Deploys, first calls and memory", ["what", "functions", "value"]);
    let mut row = |what: &str, value: String| table.row([what.into(), format!("{count} {kind}"), value]);
    row("deploy (upload, compile, ready), median", time(median_time(deploys)));
    row("first call after its deploy, median", time(median_time(first_deployed)));
    row("warm call after that, median", time(median_time(warm_deployed)));
    row("start of the process with all of them deployed", time(start));
    row("first call after a restart, median", time(median_time(first_restarted)));
    row("warm call after that, median", time(median_time(warm_restarted)));
    row(
        "resident memory of the process with one function",
        format!("{:.1} MiB", idle.resident as f64 / 1_048_576.0),
    );
    row("private memory for each function, deployed and called", each(deployed, idle));
    row("private memory for each function, after a restart, not called", each(restarted, idle));
    row("private memory for each function, after its first call", each(loaded, restarted));
    Ok(table)
}

/// The same module with another digest: a custom section at its end tells them apart.
pub(crate) fn distinct(module: &[u8], number: u32) -> Vec<u8> {
    // A section's id and size, its name behind the name's length, and four bytes.
    let mut module = [module, b"\x00\x0a\x05bench"].concat();
    module.extend_from_slice(&number.to_le_bytes());
    module
}
