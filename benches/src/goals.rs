//! What Fawn wants to reach, beside what was measured.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    bench::Measured,
    report::{Table, spread},
    statistics::Figure,
    warm::{By, Subject, WASMTIME, Work},
};

/// One of the goals.
pub(crate) struct Goal {
    what: &'static str,
    bound: Bound,
    unit: &'static str,
    digits: usize,
    /// Or why there is none.
    figure: Result<Figure, String>,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn new(
        what: &'static str,
        bound: Bound,
        unit: &'static str,
        digits: usize,
        figure: Result<Figure>,
    ) -> Self {
        Self { what, bound, unit, digits, figure: figure.map_err(|why| format!("{why:#}")) }
    }

    fn met(&self) -> Option<bool> {
        let median = self.figure.as_ref().ok()?.median;
        Some(match self.bound {
            Bound::AtLeast(bound) => median >= bound,
            Bound::AtMost(bound) => median <= bound,
        })
    }

    fn bound(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
        };
        format!("{sign} {bound:.digits$}{unit}", digits = self.digits, unit = self.unit)
    }

    pub(crate) fn json(&self) -> Value {
        let (bound, direction) = match self.bound {
            Bound::AtLeast(bound) => (bound, "at least"),
            Bound::AtMost(bound) => (bound, "at most"),
        };
        json!({
            "goal": self.what,
            "bound": bound,
            "direction": direction,
            "unit": self.unit.trim(),
            "met": self.met(),
            "median": self.figure.as_ref().ok().map(|figure| figure.median),
            "least": self.figure.as_ref().ok().map(|figure| figure.least),
            "most": self.figure.as_ref().ok().map(|figure| figure.most),
            "not_measured": self.figure.as_ref().err(),
        })
    }
}

pub(crate) fn table(goals: &[Goal]) -> Table {
    let mut table = Table::new("Goals", ["", "goal", "median (least..most of the rounds)", "met"]);
    for goal in goals {
        let figure = match &goal.figure {
            Ok(figure) => format!("{}{}", spread(*figure, goal.digits), goal.unit),
            Err(why) => format!("not measured: {why}"),
        };
        let met = goal.met().map_or("–", |met| if met { "yes" } else { "no" });
        table.row([goal.what.into(), goal.bound(), figure, met.into()]);
    }
    table
}

/// All goals, in the order in which they are kept.
pub(crate) fn all(measured: &Measured) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    let mut goals = Vec::new();
    let mut goal = |what, bound, unit, digits, figure: Result<Figure>| {
        goals.push(Goal::new(what, bound, unit, digits, figure));
    };
    let warm = &measured.subjects;
    let of_hyper = |by| warm.get(Work::Hello, by)?.rate_beside(warm.fastest(Work::Hello)?);
    goal("component, 64 connections: calls/s of hyper's", AtLeast(0.40), "", 3, of_hyper(By::FawnComponent));
    goal(
        "component, 64 connections: calls/s of `wasmtime serve`'s",
        AtLeast(3.0),
        " ×",
        2,
        warm.get(Work::Hello, By::FawnComponent)
            .and_then(|fawn| fawn.rate_beside(warm.get(Work::Hello, WASMTIME)?)),
    );
    goal(
        "gateway and node apart, 64 connections: calls/s of those in one process",
        AtLeast(0.5),
        "",
        3,
        warm.get(Work::Hello, By::FawnApart)
            .and_then(|apart| apart.rate_beside(warm.get(Work::Hello, By::FawnComponent)?)),
    );
    goal("command, 64 connections: calls/s of hyper's", AtLeast(0.55), "", 3, of_hyper(By::FawnStdio));
    goal(
        "component, one connection: p50 over hyper's",
        AtMost(25.0),
        " µs",
        1,
        warm.get(Work::Hello, By::FawnComponent)
            .and_then(|fawn| fawn.alone_over(warm.quickest(Work::Hello)?)),
    );
    let Measured { instances, costs, noise, .. } = measured;
    goal(
        "instance of a component with its store, made and dropped",
        AtMost(8.0),
        " µs",
        2,
        Ok(instances.time),
    );
    goal("page faults of that", AtMost(0.0), "", 2, Ok(instances.faults));
    let millis = |figure: Figure| figure.scaled(1e-3);
    goal(
        "component not in memory: first call over a warm one",
        AtMost(0.5),
        " ms",
        3,
        Ok(millis(costs.component.over_warm)),
    );
    goal(
        "JavaScript not in memory: first call over a warm one",
        AtMost(3.0),
        " ms",
        2,
        costs.js.as_ref().map(|js| millis(js.over_warm)).with_context(|| measured.no_js.clone()),
    );
    goal(
        "JavaScript, 64 connections: processor time of a call",
        AtMost(260.0),
        " µs",
        0,
        warm.get(Work::JavaScript, By::FawnComponent).and_then(Subject::cpu).context(measured.no_js.clone()),
    );
    goal("component, called once: private memory", AtMost(64.0), " KiB", 1, Ok(costs.component.memory));
    for noise in noise {
        goal(noise.name, AtMost(noise.bound() / 1e3), " ms", 2, Ok(millis(noise.noisy.p99)));
    }
    goals
}
