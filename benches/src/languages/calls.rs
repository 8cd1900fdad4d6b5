//! Calls of what was built, beside the leanest functions that can be written by hand.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::builds::Build;
use crate::{
    api::Api,
    bench::say,
    calls::Kind,
    cold,
    connection::request,
    guests::{Guests, HELLO, distinct},
    load::{self, Round, Target},
    process,
    report::{Table, spread, time},
    server::Server,
    statistics::Figure,
};

/// Enough to keep two cores busy, and so few that a call seldom waits for others.
const CONNECTIONS: usize = 8;

/// What the samples answer to nothing; some end it with a line break.
const ANSWER: &str = "Hello! You said: ";

/// A function, and what all rounds saw of it.
pub(super) struct Called {
    name: &'static str,
    kind: Kind,
    /// Whether it is written by hand, to be compared with.
    lean: bool,
    answer_length: usize,
    deploy: Duration,
    /// Of modules that replace what was deployed before.
    updates: Vec<Duration>,
    /// The first call after the deploy.
    first: Duration,
    after_restarts: cold::Seen,
    rounds: Vec<Round>,
    /// Processor time of the server for a call, in microseconds.
    cpu: Vec<f64>,
}

/// Deploys what was built and what is lean, then calls all of it: each round in a new process, one after the other.
pub(super) fn measure(
    fawn: &Path,
    folder: &Path,
    builds: &[Build],
    rounds: usize,
    time: Duration,
) -> Result<Vec<Called>> {
    let guests = Guests::read(None)?;
    let function = folder.join("hello.wasm");
    fs::write(&function, &guests.hello)?;
    let start = || Server::fawn(fawn, &function, &folder.join("data"));
    say("deploying")?;
    let server = start()?;
    let mut api = Api::connect(&server)?;
    // What a process does in its first call is no function's.
    api.time_warm_call("hello")?;
    // Not the same module as the one that has been called then.
    let (component, command) = (distinct(&guests.hello, 0), distinct(&guests.hello_stdio, 0));
    let mut all = vec![
        Called::deploy(&mut api, "component", Kind::Component, &[&component], HELLO)?,
        Called::deploy(&mut api, "command", Kind::Command, &[&command], HELLO)?,
    ];
    for called in &mut all {
        called.lean = true;
    }
    for Build { language, outcome } in builds {
        let Ok(built) = outcome else { continue };
        // As somebody deploys it who works on it, but back to the answer that is known.
        let modules: Vec<_> = built.edited.iter().chain([&built.module]).map(Vec::as_slice).collect();
        all.push(Called::deploy(&mut api, language, built.kind, &modules, ANSWER)?);
    }
    drop(api);
    server.stop()?;
    for round in 1..=rounds {
        say(&format!("calls, round {round} of {rounds}"))?;
        let server = start()?;
        let mut api = Api::connect(&server)?;
        api.time_warm_call("hello")?;
        for called in &mut all {
            called.after_restarts.look(&mut api, server.pid, &[called.name.into()])?;
        }
        drop(api);
        for called in &mut all {
            called.round(&server, time).with_context(|| called.name)?;
        }
        server.stop()?;
    }
    Ok(all)
}

impl Called {
    /// Deploys the first module, and each of the others in place of the one before.
    fn deploy(
        api: &mut Api,
        name: &'static str,
        kind: Kind,
        modules: &[&[u8]],
        answer: &str,
    ) -> Result<Self> {
        let (module, others) = modules.split_first().context("nothing to deploy")?;
        let begin = Instant::now();
        api.deploy(name, module, json!({})).with_context(|| format!("{name} cannot be deployed"))?;
        let deploy = begin.elapsed();
        let update = |module: &&[u8]| {
            let begin = Instant::now();
            api.update(name, module).with_context(|| format!("{name} cannot be updated"))?;
            Ok(begin.elapsed())
        };
        let updates = others.iter().map(update).collect::<Result<_>>()?;
        let first = api.time_call(name)?;
        let answered = api.call(name)?;
        let text = String::from_utf8_lossy(&answered);
        ensure!(text.trim_end() == answer.trim_end(), "{name} answers {text:?} where {answer:?} is due");
        Ok(Self {
            name,
            kind,
            lean: false,
            answer_length: answered.len(),
            deploy,
            updates,
            first,
            after_restarts: cold::Seen::default(),
            rounds: Vec::new(),
            cpu: Vec::new(),
        })
    }

    fn round(&mut self, server: &Server, time: Duration) -> Result<()> {
        let request = request("GET", &format!("/function/{}", self.name), b"");
        let target =
            Target { address: server.address, request, status: 200, answer_length: self.answer_length };
        let pid = server.pid.to_string();
        let before = process::cpu_time(&pid)?;
        let round = load::closed(&target, CONNECTIONS, time)?;
        let cpu = process::cpu_time(&pid)? - before;
        self.cpu.push(cpu.as_secs_f64() * 1e6 / round.calls as f64);
        self.rounds.push(round);
        Ok(())
    }

    /// Calls in a second, as a part of another's in the same round.
    fn rate_beside(&self, other: &Self) -> Result<Figure> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Figure::of(pairs.map(|(own, other)| own.calls_per_second / other.calls_per_second))
    }

    fn latency(&self, of: impl Fn(&Round) -> Duration) -> Result<Figure> {
        Figure::of_times(self.rounds.iter().map(of), 1e6)
    }
}

/// The lean function of that kind.
fn lean(all: &[Called], kind: Kind) -> Result<&Called> {
    all.iter().find(|called| called.lean && called.kind == kind).with_context(|| format!("no lean {kind}"))
}

pub(super) fn table(all: &[Called]) -> Result<Table> {
    let title =
        format!("Warm calls, {CONNECTIONS} connections, beside a component and a command written by hand");
    let mut table = Table::new(
        &title,
        ["function", "is a", "calls/s", "of component", "of command", "p50", "p99", "server CPU"],
    );
    for called in all {
        let of_command = match called.kind {
            Kind::Component => "–".into(),
            Kind::Command => spread(called.rate_beside(lean(all, Kind::Command)?)?, 3),
        };
        table.row([
            called.name.into(),
            called.kind.to_string(),
            spread(Figure::of(called.rounds.iter().map(|round| round.calls_per_second))?, 0),
            spread(called.rate_beside(lean(all, Kind::Component)?)?, 3),
            of_command,
            time(called.latency(|round| round.p50)?),
            time(called.latency(|round| round.p99)?),
            time(Figure::of(called.cpu.iter().copied())?),
        ]);
    }
    Ok(table)
}

pub(super) fn first_calls(all: Vec<Called>) -> Result<Table> {
    let mut table = Table::new(
        "Deploys, and first calls: right after the deploy, and in a new process with the code in the page cache",
        [
            "function",
            "deploy",
            "after an edit",
            "first call after it",
            "first call after a restart",
            "warm call",
            "first over warm",
            "private memory, called once",
        ],
    );
    for called in all {
        let cost = called.after_restarts.cost(vec![called.deploy])?;
        table.row([
            called.name.into(),
            time(cost.deploy.context("not deployed")?),
            Figure::of_times(called.updates, 1e6).map_or_else(|_| "–".into(), time),
            time(Figure::of_times([called.first], 1e6)?),
            time(cost.first),
            time(cost.warm),
            time(cost.over_warm),
            format!("{} KiB", spread(cost.memory, 1)),
        ]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &'static str, kind: Kind, lean: bool, rates: [f64; 3]) -> Called {
        let latency = Duration::from_micros(250);
        let round = |calls_per_second| Round { calls: 1, calls_per_second, p50: latency, p99: latency * 2 };
        Called {
            name,
            kind,
            lean,
            answer_length: 0,
            deploy: Duration::ZERO,
            updates: Vec::new(),
            first: Duration::ZERO,
            after_restarts: cold::Seen::default(),
            rounds: rates.map(round).into(),
            cpu: vec![50.0],
        }
    }

    #[test]
    fn a_function_is_compared_within_its_rounds() {
        let all = [
            called("component", Kind::Component, true, [100.0, 200.0, 400.0]),
            called("command", Kind::Command, true, [200.0, 400.0, 800.0]),
            called("rust-wasm", Kind::Component, false, [50.0, 100.0, 100.0]),
            called("go-wasm", Kind::Command, false, [10.0, 20.0, 40.0]),
        ];
        let table = table(&all).unwrap().to_string();
        let row = |name: &str| {
            let line = table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
            line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(row("component"), "component|component|200 (100..400)|1.000|–|250 µs|500 µs|50.0 µs");
        assert_eq!(
            row("rust-wasm"),
            "rust-wasm|component|100 (50..100)|0.500 (0.250..0.500)|–|250 µs|500 µs|50.0 µs"
        );
        assert_eq!(row("go-wasm"), "go-wasm|command|20 (10..40)|0.100|0.050|250 µs|500 µs|50.0 µs");
    }
}
