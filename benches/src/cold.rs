use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    HELLO,
    connection::{Connection, request},
    process::{self, Memory},
    report::{median_time, time},
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
        self.connection.call(&request("POST", "/system/artifacts", module)).await?;
        let stored: Value = serde_json::from_slice(&self.connection.body)?;
        let spec =
            json!({ "service": name, "image": stored.get("image").context("an artifact without an image")? });
        self.connection.call(&request("POST", "/system/functions", spec.to_string().as_bytes())).await
    }

    /// Calls a function that says hello, and gives how long that took.
    async fn hello(&mut self, name: &str) -> Result<Duration> {
        let request = request("GET", &format!("/function/{name}"), b"");
        let sent = Instant::now();
        self.connection.expect(&request, HELLO.len()).await?;
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

/// What deploys, first calls and memory cost: a name and a value each.
pub(crate) type Costs = Vec<(&'static str, String)>;

/// Deploys `count` distinct functions to a fresh node, which runs one function already, calls them, restarts it, and
/// calls them again.
pub(crate) async fn measure(
    program: &Path,
    first: &Path,
    data_dir: &Path,
    module: &[u8],
    count: u32,
) -> Result<Costs> {
    let names: Vec<_> = (0..count).map(|at| format!("bench-{at}")).collect();
    // A first start compiles, which leaves memory behind: compare with a second one.
    Server::fawn(program, first, data_dir).await?.stop().await?;
    let server = Server::fawn(program, first, data_dir).await?;
    let mut fawn = Fawn::connect(&server).await?;
    fawn.first_calls(&["hello".into()]).await?;
    let idle = process::memory(server.pid)?;
    let mut deploys = Vec::new();
    for (name, at) in names.iter().zip(0..) {
        let begin = Instant::now();
        fawn.deploy(name, &distinct(module, at)).await?;
        deploys.push(begin.elapsed());
    }
    let (first_deployed, warm) = fawn.first_calls(&names).await?;
    let deployed = process::memory(server.pid)?;
    drop(fawn);
    server.stop().await?;

    let begin = Instant::now();
    let server = Server::fawn(program, first, data_dir).await?;
    let start = begin.elapsed();
    let mut fawn = Fawn::connect(&server).await?;
    fawn.first_calls(&["hello".into()]).await?;
    let restarted = process::memory(server.pid)?;
    let (first_restarted, warm_restarted) = fawn.first_calls(&names).await?;
    let loaded = process::memory(server.pid)?;
    drop(fawn);
    server.stop().await?;

    let each = |after: Memory, before: Memory| {
        format!("{:.1} KiB", (after.private as f64 - before.private as f64) / f64::from(count) / 1024.0)
    };
    Ok(vec![
        ("deploy (upload, compile, ready)", time(median_time(deploys))),
        ("first call after a deploy", time(median_time(first_deployed))),
        ("warm call after a deploy", time(median_time(warm))),
        ("start of the process with all of them deployed", time(start)),
        ("first call after a restart", time(median_time(first_restarted))),
        ("warm call after a restart", time(median_time(warm_restarted))),
        ("resident memory with one function", format!("{:.1} MiB", idle.resident as f64 / 1_048_576.0)),
        ("private memory a function, deployed and called", each(deployed, idle)),
        ("private memory a function, after a restart, not yet called", each(restarted, idle)),
        ("private memory a function, added by its first call", each(loaded, restarted)),
    ])
}

/// The same module with another digest: a custom section at its end tells them apart.
fn distinct(module: &[u8], number: u32) -> Vec<u8> {
    // A section's id and size, its name behind the name's length, and four bytes.
    let mut module = [module, b"\x00\x0a\x05bench"].concat();
    module.extend_from_slice(&number.to_le_bytes());
    module
}
