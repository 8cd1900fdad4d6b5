//! What several functions say at once, a line each, and how a command is ended from outside.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use anyhow::{Context, Result};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
};

/// Colours of names, as numbers of ECMA-48's SGR: those that are read on light and dark grounds.
const COLOURS: [u8; 5] = [36, 35, 32, 33, 34];

/// Puts the function's name in front of each line where there are several.
#[derive(Debug)]
pub(crate) struct Lines {
    names: Vec<String>,
    width: usize,
    colours: bool,
}

impl Lines {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let names: Vec<String> = names.into_iter().cloned().collect();
        let width = names.iter().map(String::len).max().unwrap_or_default();
        // no-color.org
        let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|off| off.is_empty());
        Self { names, width, colours }
    }

    /// A line of a function's build, or about it, on standard error.
    pub(crate) fn say(&self, name: &str, text: &str) {
        // Where standard error is closed, nobody wants to know.
        let _ = writeln!(io::stderr().lock(), "{}{text}", self.prefix(name));
    }

    /// A line that a function wrote to its log, on standard output.
    pub(crate) fn log(&self, name: &str, text: &str) -> Result<()> {
        let line = format!("{}{}", self.prefix(name), printable(text));
        writeln!(io::stdout().lock(), "{line}").context("standard output cannot be written")
    }

    fn prefix(&self, name: &str) -> String {
        let Some(place) = self.names.iter().position(|known| known == name).filter(|_| self.names.len() > 1)
        else {
            return String::new();
        };
        let colour = COLOURS.get(place % COLOURS.len()).filter(|_| self.colours);
        match colour {
            Some(colour) => format!("\u{1b}[{colour}m{name:width$} |\u{1b}[0m ", width = self.width),
            None => format!("{name:width$} | ", width = self.width),
        }
    }
}

/// What others wrote, without what steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

/// Does the work, unless the user ends it: then what it holds is dropped, and with it the processes that it started.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let listen = |kind| signal(kind).context("signals cannot be listened for");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (mut terminate, mut hang_up) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    select! {
        done = work => done.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hang_up.recv() => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_functions_stand_behind_their_names() {
        let names = ["api".to_owned(), "resize".to_owned()];
        let mut lines = Lines::of(&names);
        lines.colours = false;
        assert_eq!((lines.prefix("api"), lines.prefix("resize")), ("api    | ".into(), "resize | ".into()));
        lines.colours = true;
        assert_eq!(lines.prefix("resize"), "\u{1b}[35mresize |\u{1b}[0m ");
        assert_eq!(Lines::of(&names[..1]).prefix("api"), "");
    }

    #[test]
    fn a_log_steers_no_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\r"), "a [2Jb\tc ");
    }
}
