//! Warm calls: as many as 64 connections make, and of one connection alone.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    load::{self, Round, Target},
    process,
    report::{Table, spread, time},
    statistics::Figure,
};

/// Connections that call at the same time where throughput is measured.
const CONNECTIONS: usize = 64;

/// How `wasmtime serve` is called in tables.
pub(crate) const WASMTIME: By = By::Peer("wasmtime serve");

/// What is asked for. Ratios are to the bare server that does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Hello,
    /// Hello from JavaScript, which has no bare server of its own.
    JavaScript,
    Echo,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::JavaScript => "hello, JavaScript",
            Self::Echo => "echo 1 KiB",
        }
    }

    fn of_reference(self) -> Self {
        if self == Self::JavaScript { Self::Hello } else { self }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A bare server.
    Hyper(&'static str),
    FawnComponent,
    /// The component too, with gateway and node in a process each. Its processor time is the gateway's.
    FawnApart,
    FawnStdio,
    /// Another way to run functions.
    Peer(&'static str),
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Hyper(name) | Self::Peer(name) => name,
            Self::FawnComponent => "fawn, component",
            Self::FawnApart => "fawn gateway to fawn node, component",
            Self::FawnStdio => "fawn, stdin and stdout",
        }
    }
}

/// Somebody who answers, and what each round saw of it.
pub(crate) struct Subject {
    pub(crate) work: Work,
    pub(crate) by: By,
    pub(crate) target: Target,
    pub(crate) pid: u32,
    samples: Vec<Sample>,
}

struct Sample {
    round: usize,
    many: Round,
    alone: Round,
    /// Processor time of the server.
    cpu_per_call: Duration,
    /// And of those who call.
    cpu_of_both_per_call: Duration,
    faults_per_call: f64,
}

impl Subject {
    pub(crate) fn new(work: Work, by: By, target: Target, pid: u32) -> Self {
        Self { work, by, target, pid, samples: Vec::new() }
    }

    fn sample(&mut self, round: usize, time: Duration) -> Result<()> {
        let server = self.pid.to_string();
        let used = || {
            anyhow::Ok((
                process::cpu_time(&server)?,
                process::cpu_time("self")?,
                process::minor_faults(&server)?,
            ))
        };
        let before = used()?;
        let many = load::closed(&self.target, CONNECTIONS, time)?;
        let after = used()?;
        let (cpu, calls) = (after.0 - before.0, many.calls as f64);
        self.samples.push(Sample {
            round,
            many,
            alone: load::closed(&self.target, 1, time * 2 / 5)?,
            cpu_per_call: cpu.div_f64(calls),
            cpu_of_both_per_call: (cpu + after.1 - before.1).div_f64(calls),
            faults_per_call: (after.2 - before.2) as f64 / calls,
        });
        Ok(())
    }

    fn figure(&self, of: impl Fn(&Sample) -> f64) -> Result<Figure> {
        Figure::of(self.samples.iter().map(of)).with_context(|| self.by.name())
    }

    /// What each round says of this one beside another.
    fn beside(&self, other: &Self, compare: impl Fn(&Sample, &Sample) -> f64) -> Result<Figure> {
        let same_round = |own: &Sample| other.samples.iter().find(|other| other.round == own.round);
        Figure::of(self.samples.iter().filter_map(|own| Some(compare(own, same_round(own)?))))
    }

    fn rate(&self) -> Result<Figure> {
        self.figure(|sample| sample.many.calls_per_second)
    }

    fn alone(&self) -> Result<Figure> {
        self.figure(|sample| micros(sample.alone.p50))
    }

    /// Processor time of the server, for one call of many, in microseconds.
    pub(crate) fn cpu(&self) -> Result<Figure> {
        self.figure(|sample| micros(sample.cpu_per_call))
    }

    /// Calls in a second, as a ratio to another's.
    pub(crate) fn rate_beside(&self, other: &Self) -> Result<Figure> {
        self.beside(other, |own, other| own.many.calls_per_second / other.many.calls_per_second)
    }

    /// The same on a machine that does nothing else, and whose processors are all busy: by the processor time of server
    /// and callers, which does not count what other programs take.
    fn rate_by_cpu_beside(&self, other: &Self) -> Result<Figure> {
        self.beside(other, |own, other| micros(other.cpu_of_both_per_call) / micros(own.cpu_of_both_per_call))
    }

    /// What a call alone takes longer than another's, in microseconds.
    pub(crate) fn alone_over(&self, other: &Self) -> Result<Figure> {
        self.beside(other, |own, other| micros(own.alone.p50) - micros(other.alone.p50))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// All who answer.
pub(crate) struct Subjects(pub(crate) Vec<Subject>);

impl Subjects {
    /// Measures all of them in turn, round after round, since a machine is not as fast now as it was a minute ago. What
    /// no goal asks for has every other round.
    pub(crate) fn measure(&mut self, rounds: usize, time: Duration) -> Result<()> {
        for round in 0..rounds {
            for subject in self.0.iter_mut().filter(|subject| round % 2 == 0 || subject.work == Work::Hello) {
                let name = (subject.by.name(), subject.work.name());
                subject.sample(round, time).with_context(|| format!("{}: {}", name.0, name.1))?;
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, work: Work, by: By) -> Result<&Subject> {
        let found = self.0.iter().find(|subject| subject.work == work && subject.by == by);
        found.with_context(|| format!("{} did not take part", by.name()))
    }

    /// The bare server that makes most calls.
    pub(crate) fn fastest(&self, work: Work) -> Result<&Subject> {
        self.bare(work, |subject| Ok(-subject.rate()?.median))
    }

    /// The bare server that is quickest alone.
    pub(crate) fn quickest(&self, work: Work) -> Result<&Subject> {
        self.bare(work, |subject| Ok(subject.alone()?.median))
    }

    fn bare(&self, work: Work, rank: impl Fn(&Subject) -> Result<f64>) -> Result<&Subject> {
        let work = work.of_reference();
        let bare = |subject: &&Subject| subject.work == work && matches!(subject.by, By::Hyper(_));
        let ranked: Result<Vec<_>> =
            self.0.iter().filter(bare).map(|subject| Ok((rank(subject)?, subject))).collect();
        let first = ranked?.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        Ok(first.context("no bare server")?.1)
    }

    pub(crate) fn table(&self) -> Result<Table> {
        let mut table = Table::new(
            "Warm calls: 64 connections, and one alone; \"by CPU\" is the same ratio by processor time of server and callers",
            [
                "calls",
                "answered by",
                "calls/s",
                "of hyper",
                "by CPU",
                "p50",
                "p99",
                "server CPU",
                "page faults",
                "alone p50",
                "over hyper",
            ],
        );
        for subject in &self.0 {
            table.row([
                subject.work.name().into(),
                subject.by.name().into(),
                spread(subject.rate()?, 0),
                spread(subject.rate_beside(self.fastest(subject.work)?)?, 3),
                spread(subject.rate_by_cpu_beside(self.fastest(subject.work)?)?, 3),
                time(subject.figure(|sample| micros(sample.many.p50))?),
                time(subject.figure(|sample| micros(sample.many.p99))?),
                time(subject.cpu()?),
                spread(subject.figure(|sample| sample.faults_per_call)?, 1),
                time(subject.alone()?),
                time(subject.alone_over(self.quickest(subject.work)?)?),
            ]);
        }
        Ok(table)
    }
}
