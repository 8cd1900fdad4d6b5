//! Calls as users make them: over HTTP into `fawn up`, until they are on record as succeeded.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use runtime_testing::guests;
use serde_json::Value;

use super::{BODY_BYTES, folder};
use crate::{
    connection::{Connection, request},
    load::{self, Target},
    report::{Table, spread, time},
    server::Server,
    statistics::Figure,
};

const CONNECTIONS: usize = 64;
/// How long the last call may take to run after the last one was accepted.
const PATIENCE: Duration = Duration::from_secs(240);

/// Calls a second, and microseconds.
pub(super) struct OverHttp {
    accepted: Figure,
    p50: Figure,
    p99: Figure,
    /// From the first request to the last record of success.
    run: Figure,
}

/// What one round saw.
struct Seen {
    accepted: load::Round,
    run: f64,
}

pub(super) fn measure(fawn: &Path, directory: &Path, rounds: usize, time: Duration) -> Result<OverHttp> {
    let folder = folder(directory)?;
    let function = folder.path().join("hello.wasm");
    fs::write(&function, wat::parse_str(guests::HELLO_HTTP)?)?;
    let server = Server::fawn(fawn, &function, &folder.path().join("data"))?;
    let seen = (0..rounds).map(|_| round(&server, time)).collect::<Result<Vec<_>>>()?;
    server.stop()?;
    Ok(OverHttp {
        accepted: Figure::of(seen.iter().map(|seen| seen.accepted.calls_per_second))?,
        p50: Figure::of_times(seen.iter().map(|seen| seen.accepted.p50), 1e6)?,
        p99: Figure::of_times(seen.iter().map(|seen| seen.accepted.p99), 1e6)?,
        run: Figure::of(seen.iter().map(|seen| seen.run))?,
    })
}

fn round(server: &Server, time: Duration) -> Result<Seen> {
    let mut api = Connection::open(server.address)?;
    let before = counts(&mut api)?;
    let request = request("POST", "/async-function/hello", &[b'a'; BODY_BYTES]);
    let target = Target { address: server.address, request, status: 202, answer_length: 0 };
    let began = Instant::now();
    let accepted = load::closed(&target, CONNECTIONS, time)?;
    let due = before.succeeded + accepted.calls as u64;
    let late = Instant::now() + PATIENCE;
    loop {
        let counts = counts(&mut api)?;
        ensure!(counts.lost == 0, "{} calls were given up or cancelled", counts.lost);
        if counts.succeeded >= due {
            let run = accepted.calls as f64 / began.elapsed().as_secs_f64();
            return Ok(Seen { accepted, run });
        }
        ensure!(Instant::now() < late, "only {} of {due} calls have run", counts.succeeded);
        // The look itself takes time from those who are looked at.
        thread::sleep(Duration::from_millis(10));
    }
}

struct Counts {
    succeeded: u64,
    lost: u64,
}

fn counts(api: &mut Connection) -> Result<Counts> {
    let told: Value = serde_json::from_slice(&api.call(&request("GET", "/system/async", b""))?)?;
    let functions = told.get("functions").and_then(Value::as_array).context("no functions")?;
    let sum = |name: &str| functions.iter().filter_map(|function| function.get(name)?.as_u64()).sum::<u64>();
    Ok(Counts { succeeded: sum("succeeded"), lost: sum("dead") + sum("cancelled") })
}

pub(super) fn table(seen: &OverHttp) -> Table {
    let mut table = Table::new(
        "POST /async-function of a component with 1 KiB, 64 connections, in `fawn up`",
        ["accepted/s", "p50", "p99", "run and on record/s"],
    );
    table.row([spread(seen.accepted, 0), time(seen.p50), time(seen.p99), spread(seen.run, 0)]);
    table
}
