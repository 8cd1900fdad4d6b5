//! The numbers that the README quotes: Fawn beside a bare hyper server and beside `wasmtime serve`, in one run, on the
//! same cores. Those who call share the cores with those who answer, so only ratios within a run mean anything.
//!
//! It is no test: it fails only if an answer is wrong, never because one is slow.

mod cold;
mod connection;
mod load;
mod process;
mod reference;
mod report;
mod server;
mod warm;

use std::{env, fs, io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    cold::Fawn, connection::request, load::Target, reference::Mode, report::Table, server::Server,
    warm::Subject,
};

/// What every function that says hello answers.
const HELLO: &str = "Hello from Fawn\n";
const HELLO_HTTP: &str = include_str!("../../runtime/testing/guests/hello_http.wat");
const HELLO_STDIO: &str = include_str!("../../runtime/testing/guests/hello.wat");
const ECHO_STDIO: &str = include_str!("../../runtime/testing/guests/echo.wat");
const ECHO_HTTP: &str = concat!(
    include_str!("../../runtime/testing/guests/http_begin.wat"),
    include_str!("../../runtime/testing/guests/echo_http.wat"),
    include_str!("../../runtime/testing/guests/http_end.wat")
);

/// Measures Fawn beside a bare hyper server and `wasmtime serve`, and prints Markdown tables.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// A short run that shows that everything works, and whose numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// The fawn binary [default: the one beside this program]
    #[arg(long)]
    fawn: Option<PathBuf>,
    /// The wasmtime binary [default: the one on the PATH]
    #[arg(long)]
    wasmtime: Option<PathBuf>,
    /// Writes the tables to this file too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves with nothing but hyper
    #[command(hide = true)]
    Reference { mode: Mode },
}

fn main() -> Result<()> {
    let options = Options::parse();
    match options.command {
        Some(Command::Reference { mode }) => reference::serve(mode),
        None => measure(options),
    }
}

fn measure(options: Options) -> Result<()> {
    let fawn = options
        .fawn
        .or_else(|| Some(env::current_exe().ok()?.with_file_name("fawn")).filter(|path| path.is_file()));
    let wasmtime = options.wasmtime.or_else(|| server::find_program("wasmtime"));
    let mut out = std::io::stdout();
    for (name, program) in [("fawn", &fawn), ("wasmtime", &wasmtime)] {
        if program.is_none() {
            writeln!(out, "{name} is left out: there is no binary; name one with --{name}\n")?;
        }
    }
    let programs: Vec<_> = [&fawn, &wasmtime].into_iter().flatten().map(PathBuf::as_path).collect();
    let facts = process::surroundings(&programs)?;
    for (name, value) in &facts {
        writeln!(out, "- {name}: {value}")?;
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let bench = Bench { fawn, wasmtime, quick: options.quick, folder: tempfile::tempdir()? };
    let mut tables = vec![runtime.block_on(bench.warm())?];
    tables.extend(runtime.block_on(bench.cold())?);
    for table in &tables {
        writeln!(out, "\n{table}")?;
    }
    if let Some(path) = options.json {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        let report = serde_json::json!({ "facts": facts, "quick": options.quick, "tables": tables });
        fs::write(&path, format!("{report:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What is measured, and with what.
struct Bench {
    fawn: Option<PathBuf>,
    wasmtime: Option<PathBuf>,
    quick: bool,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn warm(&self) -> Result<Table> {
        let mut servers = Vec::new();
        let mut subjects = Vec::new();
        for (mode, name) in [("multi-thread", "hyper, multi-thread"), ("per-core", "hyper, per core")] {
            let server = Server::reference(mode).await?;
            subjects.push(hello(name, "/", &server));
            subjects.push(echo(name, "/", &server));
            servers.push(server);
        }
        subjects.iter_mut().for_each(|subject| subject.bare = true);
        if let Some(wasmtime) = &self.wasmtime {
            let server = Server::wasmtime(wasmtime, &self.write("hello.wasm", HELLO_HTTP)?).await?;
            subjects.push(hello("wasmtime serve, component", "/", &server));
            servers.push(server);
            let server = Server::wasmtime(wasmtime, &self.write("echo.wasm", ECHO_HTTP)?).await?;
            subjects.push(echo("wasmtime serve, component", "/", &server));
            servers.push(server);
        }
        if let Some(fawn) = &self.fawn {
            let function = self.write("hello.wasm", HELLO_HTTP)?;
            let server = Server::fawn(fawn, &function, &self.folder.path().join("data")).await?;
            let mut api = Fawn::connect(&server).await?;
            for (name, text) in
                [("hello-stdio", HELLO_STDIO), ("echo", ECHO_HTTP), ("echo-stdio", ECHO_STDIO)]
            {
                api.deploy(name, &wat::parse_str(text)?).await?;
            }
            subjects.push(hello("fawn, component", "/function/hello", &server));
            subjects.push(hello("fawn, stdin and stdout", "/function/hello-stdio", &server));
            subjects.push(echo("fawn, component", "/function/echo", &server));
            subjects.push(echo("fawn, stdin and stdout", "/function/echo-stdio", &server));
            servers.push(server);
        }
        subjects.sort_by_key(|subject| subject.group);
        let (rounds, time) = if self.quick { (1, 200) } else { (9, 1500) };
        let measured = tokio::task::spawn_blocking(move || {
            warm::measure(&subjects, rounds, Duration::from_millis(time))
        })
        .await?;
        for server in servers {
            server.stop().await?;
        }
        measured
    }

    async fn cold(&self) -> Result<Option<Table>> {
        let Some(fawn) = &self.fawn else { return Ok(None) };
        let count = if self.quick { 3 } else { 50 };
        let first = self.write("hello.wasm", HELLO_HTTP)?;
        let (component, command) = (wat::parse_str(HELLO_HTTP)?, wat::parse_str(HELLO_STDIO)?);
        let components =
            cold::measure(fawn, &first, &self.folder.path().join("a"), &component, count).await?;
        let commands = cold::measure(fawn, &first, &self.folder.path().join("b"), &command, count).await?;
        let mut table = Table::new(
            &format!("Deploys, first calls and memory: {count} distinct functions of a kind, medians"),
            ["", "components", "commands"],
        );
        for ((name, component), (_, command)) in components.into_iter().zip(commands) {
            table.row([name.into(), component, command]);
        }
        Ok(Some(table))
    }

    /// Writes a guest as a binary, and gives its path.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, wat::parse_str(text)?)?;
        Ok(path)
    }
}

fn hello(name: &str, path: &str, server: &Server) -> Subject {
    let target =
        Target { address: server.address, request: request("GET", path, b""), answer_length: HELLO.len() };
    Subject { name: name.into(), group: "hello", bare: false, target, pid: server.pid }
}

fn echo(name: &str, path: &str, server: &Server) -> Subject {
    let body = [b'a'; 1024];
    let target =
        Target { address: server.address, request: request("POST", path, &body), answer_length: body.len() };
    Subject { name: name.into(), group: "echo 1 KiB", bare: false, target, pid: server.pid }
}
