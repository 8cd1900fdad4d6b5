use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    build::{self, BuildArguments},
    compile_module,
    completion::{self, CompletionArguments},
    deploy::{self, DeployArguments},
    dev::{self, DevArguments},
    gateway::{self, GatewayArguments},
    inspect::{self, InspectArguments},
    invoke::{self, InvokeArguments},
    new::{self, NewArguments},
    push::{self, PushArguments},
    queue::{self, QueueArguments},
    serve_node::{self, NodeArguments},
    store::{self, StoreArguments},
    up::{self, UpArguments},
};

/// Runs WebAssembly functions behind the OpenFaaS API
#[derive(Debug, Parser)]
#[command(
    name = "fawn",
    version,
    arg_required_else_help = true,
    // What a script gives by default can be overridden behind it.
    args_override_self = true,
    after_help = "First steps:
  fawn up                        serve a first function, `hello`, on http://127.0.0.1:8080
  curl http://127.0.0.1:8080/function/hello
  fawn deploy my-function.wasm   deploy a module of yours to it, from another terminal

  fawn new my-function --lang rust-wasm && fawn dev
                                 begin a function, and have it built and deployed whenever you save
  fawn invoke my-function

faas-cli works with it as with any OpenFaaS gateway. `fawn COMMAND --help` tells more."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<UpArguments>),
    Node(Box<NodeArguments>),
    Gateway(Box<GatewayArguments>),
    New(NewArguments),
    Build(BuildArguments),
    Dev(Box<DevArguments>),
    Deploy(Box<DeployArguments>),
    Invoke(InvokeArguments),
    Push(PushArguments),
    Inspect(InspectArguments),
    Store(StoreArguments),
    Queue(QueueArguments),
    Completion(CompletionArguments),
    /// Compiles one module as standard input asks for; `fawn up` starts this for itself.
    #[command(name = compile_module::NAME, hide = true)]
    CompileModule,
}

impl CommandLine {
    /// Runs the subcommand, on the runtime that fits it.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Up(arguments) => up::run(*arguments),
            Command::Node(arguments) => serve_node::run(*arguments),
            Command::Gateway(arguments) => gateway::run(*arguments),
            Command::New(arguments) => new::run(&arguments),
            Command::Build(arguments) => block_on(build::run(arguments)),
            Command::Dev(arguments) => block_on(dev::run(*arguments)),
            Command::Deploy(arguments) => block_on(deploy::run(*arguments)),
            Command::Invoke(arguments) => block_on(invoke::run(arguments)),
            Command::Push(arguments) => block_on(push::run(arguments)),
            Command::Inspect(arguments) => block_on(inspect::run(arguments)),
            Command::Store(arguments) => block_on(store::run(arguments)),
            Command::Queue(arguments) => block_on(queue::run(arguments)),
            Command::Completion(arguments) => completion::run(&arguments),
            Command::CompileModule => compile_module::run(),
        }
    }
}

/// One thread is enough for what waits on a network.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let done = runtime.block_on(work);
    // Somebody's standard input may be open for ever, and a thread reads it.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        let line =
            ["fawn", "up", "--listen=a:1", "--insecure-registry=a", "--insecure-registry=b", "--listen=b:2"];
        let parsed = format!("{:?}", CommandLine::try_parse_from(line).unwrap());
        assert!(parsed.contains(r#"listen: Some("b:2")"#) && parsed.contains(r#"["a", "b"]"#), "{parsed}");
    }

    #[test]
    fn every_subcommand_teaches_by_example() {
        for subcommand in
            CommandLine::command().get_subcommands().filter(|subcommand| !subcommand.is_hide_set())
        {
            let examples = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains("fawn "), "{}", subcommand.get_name());
        }
    }
}
