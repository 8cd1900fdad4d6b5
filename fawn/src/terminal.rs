//! What several functions say at once, a line each, and how a command is ended from outside.

use std::{
    env, fs,
    future::pending,
    io::{self, IsTerminal, Write},
    sync::{PoisonError, RwLock},
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
    /// A name keeps its place, and so its colour.
    names: RwLock<Vec<String>>,
    colours: bool,
}

impl Lines {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let names = RwLock::new(names.into_iter().cloned().collect());
        // no-color.org
        let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|off| off.is_empty());
        Self { names, colours }
    }

    /// Takes in further functions.
    pub(crate) fn know<'a>(&self, names: impl IntoIterator<Item = &'a String>) {
        let mut known = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if !known.contains(name) {
                known.push(name.clone());
            }
        }
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
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = names.iter().position(|known| known == name).filter(|_| names.len() > 1) else {
            return String::new();
        };
        let width = names.iter().map(String::len).max().unwrap_or_default();
        let colour = COLOURS.get(place % COLOURS.len()).filter(|_| self.colours);
        match colour {
            Some(colour) => format!("\u{1b}[{colour}m{name:width$} |\u{1b}[0m "),
            None => format!("{name:width$} | "),
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
    let mut terminate = listen(SignalKind::terminate())?;
    // What nohup(1) started outlives its terminal.
    let mut hang_up = match fs::read_to_string("/proc/self/status") {
        Ok(status) if ignores(&status, SignalKind::hangup()) => None,
        _ => Some(listen(SignalKind::hangup())?),
    };
    let hung_up = async {
        match &mut hang_up {
            Some(hang_up) => hang_up.recv().await,
            None => pending().await,
        }
    };
    select! {
        done = work => done.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hung_up => Ok(None),
    }
}

/// Whether a process ignores a signal, by its `/proc/PID/status` (proc(5), `SigIgn`).
fn ignores(status: &str, signal: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let bit = signal.as_raw_value().checked_sub(1).and_then(|place| u32::try_from(place).ok());
    bit.and_then(|place| mask.checked_shr(place)).is_some_and(|rest| rest & 1 == 1)
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
        let mut lines = Lines::of(&names[..1]);
        lines.colours = false;
        assert_eq!(lines.prefix("api"), "");
        lines.know(&["a".to_owned(), "api".to_owned(), "resize".to_owned()]);
        assert_eq!((lines.prefix("api"), lines.prefix("a")), ("api    | ".into(), "a      | ".into()));
    }

    #[test]
    fn an_ignored_signal_is_known() {
        let ignores = |mask: &str| {
            let status = format!(
                "Name:\tfawn\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n"
            );
            ignores(&status, SignalKind::hangup())
        };
        assert!(ignores("0000000000000001") && ignores("0000000000001003"));
        assert!(!ignores("0000000000001002") && !ignores("nonsense"));
    }

    #[test]
    fn a_log_steers_no_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\r"), "a [2Jb\tc ");
    }
}
