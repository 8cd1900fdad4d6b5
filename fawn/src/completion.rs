use std::io;

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::command_line::CommandLine;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn completion bash > /etc/bash_completion.d/fawn
  fawn completion zsh > \"${fpath[1]}/_fawn\"")]
pub(crate) struct CompletionArguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionArguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "fawn", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}
