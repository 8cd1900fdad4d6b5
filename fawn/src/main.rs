//! Runs WebAssembly functions behind the OpenFaaS API.

mod build;
mod client;
mod command_line;
mod compile_module;
mod completion;
mod config;
mod credentials;
mod deploy;
mod deploy_stack;
mod dev;
mod first_functions;
mod follow;
mod gateway;
mod gateway_config;
mod hints;
mod inspect;
mod invoke;
mod later;
mod memory;
mod module_file;
mod new;
mod node;
mod progress;
mod push;
mod queue;
mod registry;
mod roll_out;
mod serve_node;
mod serve_settings;
mod serving;
mod shrinkwrap;
mod stack;
mod store;
mod store_folder;
mod templates;
mod terminal;
mod up;
mod usage;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::CommandLine;

/// A call allocates some hundred times, on any of the cores.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    runtime_process::keep_descriptors();
    // Fails only when one is installed already, and nothing ran before this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match CommandLine::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => usage::report(&error),
    }
}
