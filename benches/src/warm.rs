use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    load::{self, Round, Target},
    process,
    report::{Table, median, median_time, time},
};

/// Connections that call at the same time where throughput is measured.
const CONNECTIONS: usize = 64;

/// Somebody who answers.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What it does: the ratios are to the bare server that does the same.
    pub(crate) group: &'static str,
    /// Whether it is a bare server. The fastest of a group is its reference.
    pub(crate) bare: bool,
    pub(crate) target: Target,
    pub(crate) pid: u32,
}

/// What one round saw of one subject.
struct Sample {
    many: Round,
    alone: Round,
    cpu_per_call: Duration,
}

/// Measures all subjects in turn, round after round, since a machine is not as fast now as it was a minute ago.
pub(crate) fn measure(subjects: &[Subject], rounds: usize, time: Duration) -> Result<Table> {
    let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            samples.push(sample(subject, time).with_context(|| subject.name.clone())?);
        }
    }
    Ok(table(subjects, &samples))
}

fn sample(subject: &Subject, time: Duration) -> Result<Sample> {
    let cpu_before = process::cpu_time(subject.pid)?;
    let many = load::run(&subject.target, CONNECTIONS, time)?;
    let cpu = process::cpu_time(subject.pid)? - cpu_before;
    let alone = load::run(&subject.target, 1, time / 3)?;
    // The processor time is that of the first fifth too, which is not counted otherwise.
    let cpu_per_call = cpu.div_f64(many.calls_per_second * time.as_secs_f64() * 1.2);
    Ok(Sample { many, alone, cpu_per_call })
}

fn table(subjects: &[Subject], samples: &[Vec<Sample>]) -> Table {
    let mut table = Table::new(
        "Warm calls: 64 connections, and one alone",
        [
            "calls",
            "answered by",
            "calls/s",
            "of hyper",
            "p50",
            "p99",
            "server CPU",
            "alone p50",
            "over hyper",
        ],
    );
    let rate =
        |samples: &[Sample]| median(samples.iter().map(|sample| sample.many.calls_per_second).collect());
    for (subject, own) in subjects.iter().zip(samples) {
        let reference = subjects
            .iter()
            .zip(samples)
            .filter(|(other, _)| other.bare && other.group == subject.group)
            .map(|(_, samples)| samples)
            .max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let pairs = || own.iter().zip(reference.into_iter().flatten());
        let over =
            median_time(pairs().map(|(own, reference)| own.alone.p50.saturating_sub(reference.alone.p50)));
        table.row([
            subject.group.into(),
            subject.name.clone(),
            format!("{:.0}", rate(own)),
            format!(
                "{:.2}",
                median(
                    pairs().map(|(own, of)| own.many.calls_per_second / of.many.calls_per_second).collect()
                )
            ),
            time(median_time(own.iter().map(|sample| sample.many.p50))),
            time(median_time(own.iter().map(|sample| sample.many.p99))),
            time(median_time(own.iter().map(|sample| sample.cpu_per_call))),
            time(median_time(own.iter().map(|sample| sample.alone.p50))),
            if subject.bare { "–".into() } else { time(over) },
        ]);
    }
    table
}
