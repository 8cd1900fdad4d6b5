//! The templates: how long the sample of each takes to build, how large it is, and what its calls cost beside the leanest
//! functions that can be written by hand.

use std::{
    io::{Write, stdout},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::{
    process,
    report::{self, Table},
    server,
};

mod builds;
mod calls;

pub(crate) const HELP: &str = "Examples:
  eval \"$(.ci/tools)\" && benches languages          with the toolchains of every language: some minutes
  benches languages --rounds 9 --seconds 5          more of it
  benches languages --quick --json languages.json   shows that it works, and writes all figures to a file

For each language it runs `fawn new hello --lang LANGUAGE` and `fawn build` in a folder of its own, and then again after
edits of the handler. The first build finds what this machine has downloaded before, but nothing that was compiled: cargo's
target folder and the caches of Go and zig are empty. Then all are deployed to one `fawn up`, and called in turn, round after round, each of which
is a process of its own. A language whose toolchain is not on the PATH is listed as NOT RUN, with what is missing.

`component` and `command` are written by hand in the text format of WebAssembly. They answer 16 bytes, where the samples
answer 17 or 18, to the same GET without a body.";

/// How much is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// A short run that shows that everything works, and whose numbers mean little
    #[arg(long)]
    quick: bool,
    /// Rounds, each with calls of all functions in a new process [default: 5, with --quick 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// How long each function is called in a round [default: 2, with --quick 0.2]
    #[arg(long, value_name = "NUMBER", value_parser = seconds)]
    seconds: Option<Duration>,
    /// The fawn binary [default: the newest of target/dist/fawn and target/release/fawn]
    #[arg(long, value_name = "FILE")]
    fawn: Option<PathBuf>,
    /// Writes facts and tables to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).into()
    }

    fn time(&self) -> Duration {
        self.seconds.unwrap_or(Duration::from_millis(if self.quick { 200 } else { 2000 }))
    }

    fn rebuilds(&self) -> u32 {
        if self.quick { 1 } else { 3 }
    }
}

/// Long enough to see some calls of a slow function, and short enough to wait for all of them.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give a number of seconds from 0.1 to 60".into())
}

/// Builds and measures all of it and prints the tables.
pub(crate) fn measure(options: Options) -> Result<()> {
    let (rounds, time, rebuilds) = (options.rounds(), options.time(), options.rebuilds());
    let fawn = options.fawn.map_or_else(server::newest_fawn, Ok)?;
    let fawn = fawn.canonicalize().with_context(|| format!("there is no {}", fawn.display()))?;
    let folder = tempfile::tempdir()?;
    let mut facts = process::machine(&fawn)?;
    facts.push(("files in".into(), process::file_system(folder.path())?));
    for (name, value) in &facts {
        writeln!(stdout(), "- {name}: {value}")?;
    }
    let builds = builds::measure(&fawn, folder.path(), rebuilds)?;
    let called = calls::measure(&fawn, folder.path(), &builds, rounds, time)?;
    let load_after = process::load_average()?;
    writeln!(stdout(), "- load average after: {load_after}")?;
    let not_run: Vec<_> =
        builds.iter().filter_map(|build| Some((build.language, build.missing()?))).collect();
    for (language, missing) in &not_run {
        writeln!(stdout(), "- NOT RUN: {language}: {missing}")?;
    }
    writeln!(stdout())?;
    let tables = [builds::table(&builds), calls::table(&called)?, calls::first_calls(called)?];
    for table in &tables {
        writeln!(stdout(), "{table}")?;
    }
    let Some(path) = options.json else { return Ok(()) };
    let found = json!({
        "facts": report::facts(facts),
        "load_average_after": load_after,
        "quick": options.quick,
        "not_run": not_run.iter().map(|(language, missing)| json!({ "language": language, "missing": missing })).collect::<Vec<_>>(),
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    report::write(&path, &found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_few_but_enough() {
        assert_eq!(seconds("2").unwrap(), Duration::from_secs(2));
        assert_eq!(seconds("0.25").unwrap(), Duration::from_millis(250));
        for bad in ["", "0", "-1", "61", "NaN", "inf", "2s"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
