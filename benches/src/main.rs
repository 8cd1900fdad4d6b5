//! The goals, measured: Fawn beside a bare hyper server and beside others who run functions, in one run, on the same
//! cores. Those who call share the cores with those who answer, so only what is compared within a run means anything.
//!
//! It is no test: it fails only if an answer is wrong, never because one is slow.

mod answer;
mod api;
mod bench;
mod calls;
mod cold;
mod connection;
mod goals;
mod guests;
mod instances;
mod instructions;
mod languages;
mod load;
mod noisy;
mod process;
mod queue;
mod reference;
mod report;
mod server;
mod statistics;
mod warm;

use std::{
    env,
    io::{Write, stdin, stdout},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;

use crate::{
    bench::{Bench, Extent},
    goals::Goal,
    guests::Guests,
    reference::Mode,
    report::Table,
};

/// As in the `fawn` binary, so that the bare server and instances made here are measured with it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Fawn beside a bare hyper server and its peers, and prints the goals and more as Markdown tables.
///
/// Build it together with what it measures, in the same profile: cargo build --profile dist -p fawn -p benches
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// A short run without JavaScript that shows that everything works, and whose numbers mean little
    #[arg(long)]
    quick: bool,
    /// The fawn binary [default: the newest of target/dist/fawn and target/release/fawn]
    #[arg(long, value_name = "FILE")]
    fawn: Option<PathBuf>,
    /// The wasmtime binary [default: the one on the PATH]
    #[arg(long, value_name = "FILE")]
    wasmtime: Option<PathBuf>,
    /// The workerd binary, from npm [default: the one on the PATH]
    #[arg(long, value_name = "FILE")]
    workerd: Option<PathBuf>,
    /// The spin binary [default: the one on the PATH]
    #[arg(long, value_name = "FILE")]
    spin: Option<PathBuf>,
    /// The JavaScript guest [default: what fawn/tests/guests/build has built last]
    #[arg(long, value_name = "FILE")]
    js: Option<PathBuf>,
    /// Writes goals, figures and tables to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Counts the instructions of a warm call with valgrind, and prints what has changed
    Instructions {
        /// The counts of before
        #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
        file: PathBuf,
        /// Puts the counts of now in their place
        #[arg(long)]
        write: bool,
    },
    /// Measures the queue of asynchronous calls: durable pushes beside a bare log on the same disk, a large backlog, and
    /// calls over HTTP until they have run
    #[command(after_help = queue::HELP)]
    Queue(queue::Options),
    /// Builds the sample of each template, and measures its calls beside the leanest functions written by hand
    #[command(after_help = languages::HELP)]
    Languages(languages::Options),
    /// Fills or drains a queue in this process, and nothing else
    #[command(hide = true)]
    Backlog { part: queue::Part, folder: PathBuf, calls: u64 },
    /// Makes warm calls in this process, and nothing else
    #[command(hide = true)]
    Calls {
        kind: calls::Kind,
        count: u32,
        #[arg(long)]
        valgrind: Option<PathBuf>,
    },
    /// Serves with nothing but hyper
    #[command(hide = true)]
    Reference { mode: Mode },
    /// Makes instances in this process, and nothing else
    #[command(hide = true)]
    Instances { rounds: usize, count: u32 },
    /// Compiles one module, as a child of another command
    #[command(hide = true)]
    CompileModule,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match options.command {
        Some(Command::Reference { mode }) => reference::serve(mode),
        Some(Command::Instructions { file, write }) => instructions::count(&file, write),
        Some(Command::Queue(options)) => queue::measure(options),
        Some(Command::Languages(options)) => languages::measure(options),
        Some(Command::Backlog { part, folder, calls }) => queue::backlog(part, &folder, calls),
        Some(Command::Calls { kind, count, valgrind }) => calls::make(kind, count, valgrind),
        Some(Command::Instances { rounds, count }) => instances::make(rounds, count),
        Some(Command::CompileModule) => Ok(runtime_wasm::compile_child(stdin().lock())?),
        None => measure(options),
    }
}

fn measure(options: Options) -> Result<()> {
    let fawn = options.fawn.map_or_else(server::newest_fawn, Ok)?;
    let wasmtime = options.wasmtime.or_else(|| server::find_program("wasmtime"));
    let workerd = options.workerd.or_else(|| server::find_program("workerd"));
    let spin = options.spin.or_else(|| server::find_program("spin"));
    let js = options.js.or_else(|| guests::find_js(&cache()?.join("guests"))).filter(|_| !options.quick);
    let no_js = if options.quick {
        "left out of a quick run"
    } else {
        "build the guest with `eval \"$(.ci/tools)\" && fawn/tests/guests/build`, or name one with --js"
    };
    let facts = process::surroundings(&fawn, wasmtime.as_deref(), spin.as_deref())?;
    let mut out = stdout();
    for (name, value) in &facts {
        writeln!(out, "- {name}: {value}")?;
    }
    let bench = Bench {
        fawn,
        wasmtime,
        workerd,
        spin,
        guests: Guests::read(js.as_deref())?,
        no_js: no_js.into(),
        extent: if options.quick { Extent::QUICK } else { Extent::FULL },
        folder: tempfile::tempdir()?,
    };
    let measured = bench.run()?;
    let load_after = process::load_average()?;
    writeln!(out, "- load average after: {load_after}")?;
    let goals = goals::all(&measured);
    writeln!(out, "\n{}", goals::table(&goals))?;
    for table in &measured.tables {
        writeln!(out, "{table}")?;
    }
    let Some(path) = options.json else { return Ok(()) };
    let json = json!({
        "facts": report::facts(facts),
        "load_average_after": load_after,
        "quick": options.quick,
        "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
        "tables": measured.tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    report::write(&path, &json)
}

/// Where the end-to-end tests keep what they have built.
fn cache() -> Option<PathBuf> {
    let below = |variable: &str, path: &str| Some(PathBuf::from(env::var_os(variable)?).join(path));
    below("FAWN_CACHE", "")
        .or_else(|| below("XDG_CACHE_HOME", "fawn"))
        .or_else(|| below("HOME", ".cache/fawn"))
}
