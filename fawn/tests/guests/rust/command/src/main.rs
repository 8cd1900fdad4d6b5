//! A program of many small commands, named by its first argument: one WASI command.

use std::{
    env, io,
    process::{ExitCode, exit},
};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = match arguments.next().as_deref() {
        None | Some("cat") => cat(),
        Some("args") => {
            println!("{:?}", arguments.collect::<Vec<_>>());
            Ok(())
        }
        Some("env") => {
            env::vars().for_each(|(name, value)| println!("{name}={value}"));
            Ok(())
        }
        Some("exit") => leave(arguments.next()),
        Some("panic") => panic!("on purpose"),
        Some(other) => Err(io::Error::other(format!("{other}: no such command"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn cat() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map(drop)
}

/// Says on both streams how it is about to end.
fn leave(code: Option<String>) -> io::Result<()> {
    let code = code.unwrap_or_default().parse().map_err(io::Error::other)?;
    println!("exiting with {code}");
    eprintln!("this went to stderr");
    exit(code)
}
