//! Deploys, first calls with the code not in memory but in the page cache, and memory.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::{
    api::Api,
    guests::distinct,
    process::{self, Memory},
    report::{Table, spread, time},
    server::Server,
    statistics::{Figure, median_time},
};

/// What is measured in one go.
pub(crate) struct Plan<'a> {
    /// Starts a node on the same data, which has the functions `hello` and, if they are deployed, `js`.
    pub(crate) start: &'a dyn Fn() -> Result<Server>,
    /// Each is deployed so often, as distinct modules.
    pub(crate) component: &'a [u8],
    pub(crate) command: &'a [u8],
    pub(crate) count: u32,
    /// How often the node is restarted.
    pub(crate) restarts: usize,
    pub(crate) js: bool,
}

/// Medians of each restart, times in microseconds, memory in KiB.
pub(crate) struct Costs {
    start: Figure,
    resident: Figure,
    pub(crate) component: Cost,
    command: Cost,
    pub(crate) js: Option<Cost>,
}

pub(crate) struct Cost {
    pub(crate) deploy: Option<Figure>,
    pub(crate) first: Figure,
    pub(crate) warm: Figure,
    /// The first call over a warm one.
    pub(crate) over_warm: Figure,
    /// Private memory that the first call adds, for each function.
    pub(crate) memory: Figure,
}

pub(crate) fn measure(plan: &Plan<'_>) -> Result<Costs> {
    let names = |kind: &str| (0..plan.count).map(|at| format!("{kind}-{at}")).collect::<Vec<_>>();
    let (components, commands) = (names("component"), names("command"));
    let server = (plan.start)()?;
    let mut api = Api::connect(&server)?;
    let component_deploys = deploy(&mut api, &components, plan.component)?;
    let command_deploys = deploy(&mut api, &commands, plan.command)?;
    drop(api);
    server.stop()?;

    let (mut starts, mut residents) = (Vec::new(), Vec::new());
    let (mut component, mut command, mut js) = (Seen::default(), Seen::default(), Seen::default());
    for _ in 0..plan.restarts {
        let begin = Instant::now();
        let server = (plan.start)()?;
        starts.push(begin.elapsed());
        let mut api = Api::connect(&server)?;
        api.time_warm_call("hello")?;
        residents.push(process::memory(server.pid)?.resident as f64 / f64::from(1 << 20));
        component.look(&mut api, server.pid, &components)?;
        command.look(&mut api, server.pid, &commands)?;
        if plan.js {
            js.look(&mut api, server.pid, &["js".to_owned()])?;
        }
        drop(api);
        server.stop()?;
    }
    Ok(Costs {
        start: Figure::of_times(starts, 1e6)?,
        resident: Figure::of(residents)?,
        component: component.cost(component_deploys)?,
        command: command.cost(command_deploys)?,
        js: if plan.js { Some(js.cost(Vec::new())?) } else { None },
    })
}

fn deploy(api: &mut Api, names: &[String], module: &[u8]) -> Result<Vec<Duration>> {
    let numbered = names.iter().zip(0..);
    numbered
        .map(|(name, number)| {
            let begin = Instant::now();
            api.deploy(name, &distinct(module, number), json!({}))?;
            Ok(begin.elapsed())
        })
        .collect()
}

/// What restarts showed of one kind of function.
#[derive(Default)]
pub(crate) struct Seen {
    first: Vec<Duration>,
    warm: Vec<Duration>,
    memory: Vec<f64>,
}

impl Seen {
    /// The first call of each function, then warm calls of each.
    pub(crate) fn look(&mut self, api: &mut Api, pid: u32, names: &[String]) -> Result<()> {
        let before = process::memory(pid)?;
        let first: Result<Vec<_>> = names.iter().map(|name| api.time_call(name)).collect();
        let after = process::memory(pid)?;
        let warm: Result<Vec<_>> = names.iter().map(|name| api.time_warm_call(name)).collect();
        self.first.push(median_time(first?)?);
        self.warm.push(median_time(warm?)?);
        let added = |after: Memory, before: Memory| after.private as f64 - before.private as f64;
        self.memory.push(added(after, before) / 1024.0 / names.len() as f64);
        Ok(())
    }

    pub(crate) fn cost(self, deploys: Vec<Duration>) -> Result<Cost> {
        let micros = |time: &Duration| time.as_secs_f64() * 1e6;
        let pairs = self.first.iter().zip(&self.warm);
        Ok(Cost {
            over_warm: Figure::of(pairs.map(|(first, warm)| micros(first) - micros(warm)))?,
            deploy: Figure::of_times(deploys, 1e6).ok(),
            first: Figure::of_times(self.first, 1e6)?,
            warm: Figure::of_times(self.warm, 1e6)?,
            memory: Figure::of(self.memory)?,
        })
    }
}

pub(crate) fn table(costs: &Costs, plan: &Plan<'_>) -> Table {
    let title = format!(
        "After a restart, code in the page cache: {} distinct components and as many commands, {} restarts; \
         the process starts in {} and has {} MiB resident with one function called",
        plan.count,
        plan.restarts,
        time(costs.start),
        spread(costs.resident, 1)
    );
    let mut table = Table::new(
        &title,
        [
            "functions",
            "deploy",
            "first call",
            "warm call",
            "first over warm",
            "private memory each, called once",
        ],
    );
    let kinds = [
        ("component", Some(&costs.component)),
        ("command", Some(&costs.command)),
        ("JavaScript", costs.js.as_ref()),
    ];
    for (kind, cost) in kinds {
        let Some(cost) = cost else { continue };
        table.row([
            kind.into(),
            cost.deploy.map_or("–".into(), time),
            time(cost.first),
            time(cost.warm),
            time(cost.over_warm),
            format!("{} KiB", spread(cost.memory, 1)),
        ]);
    }
    table
}
