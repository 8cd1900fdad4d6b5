//! The process that `fawn up` starts to compile a module apart from those that serve.

use anyhow::{Context, Result};

pub(crate) const NAME: &str = "compile-module";

pub(crate) fn run() -> Result<()> {
    runtime_wasm::compile_child(std::io::stdin().lock()).context("the compile job cannot be done")
}
