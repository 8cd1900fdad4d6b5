//! Runs WebAssembly functions behind the OpenFaaS API.

mod client;
mod command_line;
mod compile_module;
mod completion;
mod config;
mod credentials;
mod deploy;
mod first_functions;
mod gateway;
mod gateway_config;
mod hints;
mod inspect;
mod later;
mod memory;
mod module_file;
mod node;
mod progress;
mod push;
mod queue;
mod registry;
mod serve_node;
mod serve_settings;
mod serving;
mod up;
mod usage;

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
