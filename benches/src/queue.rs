//! The queue of asynchronous calls, in this process and over HTTP, beside a bare log on the same disk.

use std::{
    env,
    io::{Write, stdout},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    bench::say,
    goals::{self, Bound, Goal},
    process,
    report::{self, Table},
    server,
    statistics::Figure,
};

mod backlog;
mod over_http;
mod pushes;
mod raw_log;

pub(crate) use backlog::{Part, run as backlog};

/// What a call carries everywhere here.
const BODY_BYTES: usize = 1 << 10;

pub(crate) const HELP: &str = "Examples:
  benches queue                                   everything, with a backlog of a million calls: some minutes
  benches queue --calls 100000 --rounds 3         a smaller backlog, and fewer rounds of pushes
  benches queue --directory /var/lib/bench        on the disk that is meant (a tmpfs has nothing to sync)
  benches queue --quick --json queue.json         shows that it works, and writes all figures to a file

It measures
  pushes    calls kept durably each second, by 1, 64 and 256 clients at once, and how long one takes; in turn with a log
            to which one thread appends whatever waits, and syncs: the least that an acknowledgement can cost
  backlog   so many calls of 1 KiB pushed, then the queue opened again after a clean stop and after a kill, and drained by
            64 workers, with the memory of the process at each step
  HTTP      POST /async-function of a small component, until all calls are on record as succeeded";

/// How much is measured, and where.
#[derive(Args)]
pub(crate) struct Options {
    /// A short run that shows that everything works, and whose numbers mean little
    #[arg(long)]
    quick: bool,
    /// Calls of the backlog [default: 1000000, with --quick 2000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    calls: Option<u64>,
    /// Rounds of pushes, each beside a round of the log [default: 5, with --quick 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// Where the files lie while it is measured: a folder on the disk that is meant
    #[arg(long, value_name = "FOLDER", default_value_os_t = env::temp_dir())]
    directory: PathBuf,
    /// The fawn binary [default: the newest of target/dist/fawn and target/release/fawn]
    #[arg(long, value_name = "FILE")]
    fawn: Option<PathBuf>,
    /// Writes goals, figures and tables to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the options come to.
struct Extent {
    rounds: usize,
    time: Duration,
    calls: u64,
    http_rounds: usize,
    http_time: Duration,
}

impl Options {
    fn extent(&self) -> Extent {
        let millis = |full, quick| Duration::from_millis(if self.quick { quick } else { full });
        Extent {
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).into(),
            time: millis(2000, 200),
            calls: self.calls.unwrap_or(if self.quick { 2000 } else { 1_000_000 }),
            http_rounds: if self.quick { 1 } else { 3 },
            http_time: millis(3000, 200),
        }
    }
}

/// Measures all of it and prints goals and tables.
pub(crate) fn measure(options: Options) -> Result<()> {
    let Extent { rounds, time, calls, http_rounds, http_time } = options.extent();
    let directory = &options.directory;
    let fawn = options.fawn.map_or_else(server::newest_fawn, Ok)?;
    let mut facts = process::machine(&fawn)?;
    let mut tell = |name: &str, fact: String| facts.push((name.into(), fact));
    tell("this program", format!("profile {}", process::profile(&env::current_exe()?)));
    tell("files in", format!("{}, {}", directory.display(), process::file_system(directory)?));
    for (name, value) in &facts {
        writeln!(stdout(), "- {name}: {value}")?;
    }
    say("pushes")?;
    let pushes = pushes::measure(directory, rounds, time)?;
    say("a backlog")?;
    let backlog = backlog::measure(directory, calls)?;
    say("calls over HTTP")?;
    let over_http = over_http::measure(&fawn, directory, http_rounds, http_time)?;

    let mut goals = vec![Goal::new(
        "64 clients: durable pushes/s of the bare log's",
        Bound::AtLeast(0.5),
        "",
        3,
        pushes.iter().find(|pushes| pushes.clients == 64).map(|pushes| pushes.ratio).context("left out"),
    )];
    goals.extend(backlog.goals()?);
    let tables = [pushes::table(&pushes), backlog.table(), over_http::table(&over_http)];
    writeln!(stdout(), "- load average after: {}\n\n{}", process::load_average()?, goals::table(&goals))?;
    for table in &tables {
        writeln!(stdout(), "{table}")?;
    }
    let Some(path) = options.json else { return Ok(()) };
    let json = json!({
        "facts": report::facts(facts),
        "quick": options.quick,
        "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    report::write(&path, &json)
}

/// A folder of its own, that goes with this.
fn folder(directory: &Path) -> Result<TempDir> {
    tempfile::tempdir_in(directory)
        .with_context(|| format!("no folder can be made in {}", directory.display()))
}

/// One figure that was seen once.
fn once(seen: f64) -> Result<Figure> {
    Figure::of([seen])
}
