//! A program of many small commands, named by its first argument: one WASI command.

use std::{
    env,
    fs::{self, File},
    io,
    process::{ExitCode, exit},
};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = match arguments.next().as_deref() {
        None | Some("cat") => cat(arguments),
        Some("ls") => ls(arguments),
        Some("write") => write(arguments),
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

/// The files that are named, or else standard input.
fn cat(files: impl Iterator<Item = String>) -> io::Result<()> {
    let (mut files, mut output) = (files.peekable(), io::stdout().lock());
    if files.peek().is_none() {
        return io::copy(&mut io::stdin().lock(), &mut output).map(drop);
    }
    for file in files {
        io::copy(&mut File::open(file)?, &mut output)?;
    }
    Ok(())
}

/// The names in folders, sorted, a line each.
fn ls(folders: impl Iterator<Item = String>) -> io::Result<()> {
    for folder in folders {
        let mut names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        names.iter().for_each(|name| println!("{}", name.display()));
    }
    Ok(())
}

/// Tries to change files.
fn write(files: impl Iterator<Item = String>) -> io::Result<()> {
    for file in files {
        fs::write(file, "changed")?;
    }
    Ok(())
}

/// Says on both streams how it is about to end.
fn leave(code: Option<String>) -> io::Result<()> {
    let code = code.unwrap_or_default().parse().map_err(io::Error::other)?;
    println!("exiting with {code}");
    eprintln!("this went to stderr");
    exit(code)
}
