//! A small function while another one runs for ever on each core.

use std::{thread, time::Duration};

use anyhow::{Result, bail};

use crate::{
    connection::{Connection, request},
    load::{self, Target},
    report::{Table, time},
    statistics::Figure,
};

/// A low load: 8 connections, each of which sends a request every 20 ms, so that what is seen is how long an answer
/// takes and not how much the machine can do.
const CONNECTIONS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// What the neighbour may cost: p99 of twice the quiet one, and 10 ms.
const FACTOR: f64 = 2.0;
const ALLOWANCE_MICROS: f64 = 10_000.0;

/// Latencies in microseconds.
pub(crate) struct Noise {
    pub(crate) name: &'static str,
    quiet: Latency,
    pub(crate) noisy: Latency,
}

pub(crate) struct Latency {
    p50: Figure,
    pub(crate) p99: Figure,
}

impl Noise {
    /// The p99 that is allowed beside a neighbour.
    pub(crate) fn bound(&self) -> f64 {
        FACTOR * self.quiet.p99.median + ALLOWANCE_MICROS
    }
}

/// Measures each of them with and without a neighbour, in turn, round after round. `endless` never answers.
pub(crate) fn measure(
    targets: &[(&'static str, Target)],
    endless: &Target,
    rounds: usize,
    time: Duration,
) -> Result<Vec<Noise>> {
    let mut seen: Vec<_> = targets.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..rounds {
        for ((_, target), (quiet, _)) in targets.iter().zip(&mut seen) {
            quiet.push(load::paced(target, CONNECTIONS, PAUSE, time)?);
        }
        let neighbours = Neighbours::start(endless)?;
        for ((_, target), (_, noisy)) in targets.iter().zip(&mut seen) {
            noisy.push(load::paced(target, CONNECTIONS, PAUSE, time)?);
        }
        neighbours.stop()?;
    }
    let latency = |rounds: &[load::Round]| -> Result<Latency> {
        Ok(Latency {
            p50: Figure::of_times(rounds.iter().map(|round| round.p50), 1e6)?,
            p99: Figure::of_times(rounds.iter().map(|round| round.p99), 1e6)?,
        })
    };
    let named = targets.iter().zip(&seen);
    named
        .map(|((name, _), (quiet, noisy))| Ok(Noise { name, quiet: latency(quiet)?, noisy: latency(noisy)? }))
        .collect()
}

/// Calls that never end, as many as there are cores.
struct Neighbours(Vec<Connection>);

impl Neighbours {
    fn start(endless: &Target) -> Result<Self> {
        let calls = (0..thread::available_parallelism()?.get()).map(|_| {
            let mut connection = Connection::open(endless.address)?;
            connection.send(&endless.request)?;
            Ok(connection)
        });
        Ok(Self(calls.collect::<Result<_>>()?))
    }

    /// Ends the calls, which must all have gone on until now.
    fn stop(self) -> Result<()> {
        for connection in &self.0 {
            connection.stream.set_nonblocking(true)?;
            if connection.stream.peek(&mut [0]).is_ok() {
                bail!("the function that runs for ever was answered, so it was no neighbour");
            }
        }
        Ok(())
    }
}

pub(crate) fn table(measured: &[Noise]) -> Table {
    let mut table = Table::new(
        "A function that runs for ever on each core, beside 8 connections with 50 calls/s each",
        ["called", "quiet p50", "quiet p99", "noisy p50", "noisy p99"],
    );
    for Noise { name, quiet, noisy } in measured {
        table.row([(*name).into(), time(quiet.p50), time(quiet.p99), time(noisy.p50), time(noisy.p99)]);
    }
    table
}

/// A call of the function that never answers.
pub(crate) fn endless(address: std::net::SocketAddr) -> Target {
    Target { address, request: request("GET", "/function/endless", b""), status: 200, answer_length: 0 }
}
