//! How a subcommand ends that cannot do what it was asked.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

/// Says what went wrong, and with which code the process ends: 2 when the user should have asked otherwise.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Where standard error is closed, the exit code is all that can be said.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::from(if error.is::<Mistakes>() { 2 } else { 1 })
}

/// Mistakes in what the user asked for, all that were found.
#[derive(Debug)]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    /// Nothing, when there are none.
    pub(crate) fn check(found: Vec<String>) -> Result<(), Self> {
        if found.is_empty() { Ok(()) } else { Err(Self(found)) }
    }
}

impl From<String> for Mistakes {
    fn from(mistake: String) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n       "))
    }
}

impl std::error::Error for Mistakes {}
