//! Lines for the function's log: the node keeps what is written to standard error.

use std::{fmt, str::FromStr};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// How much is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`.
const LEVEL_VARIABLE: &str = "LOG_LEVEL";

const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // In one write, so that it is one event to the host.
        eprint!("{}", line(record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// One line, whatever the message holds: what a caller sent must not look like a line of its own.
fn line(level: Level, message: impl fmt::Display) -> String {
    let mut line = format!("{level} ");
    for letter in message.to_string().chars() {
        if letter.is_control() && letter != '\t' {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line.push('\n');
    line
}

/// Makes a panic one line, whatever `LOG_LEVEL` says.
#[cfg(target_family = "wasm")]
pub(crate) fn tell_panics() {
    // Once, so that a hook which the function has set for itself stays.
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            eprint!("{}", panicked(panic.location(), panic.payload_as_str()))
        }));
    });
}

/// The line of a panic: where, and what was said.
#[cfg(any(target_family = "wasm", test))]
fn panicked(at: Option<&std::panic::Location<'_>>, said: Option<&str>) -> String {
    let at = at.map_or_else(|| "a place unknown".into(), ToString::to_string);
    line(Level::Error, format_args!("panicked at {at}: {}", said.unwrap_or("it says nothing")))
}

/// Makes the macros of `log` write lines.
pub(crate) fn start() {
    if log::set_logger(&StandardError).is_err() {
        // Another test of this process, or a logger of the function's own.
        return;
    }
    let wanted = crate::env_or(LEVEL_VARIABLE, DEFAULT_LEVEL.as_str());
    let level = LevelFilter::from_str(&wanted).ok();
    log::set_max_level(level.unwrap_or(DEFAULT_LEVEL));
    if level.is_none() {
        log::warn!(
            "{LEVEL_VARIABLE} is {wanted:?}, which is no level, so it is {DEFAULT_LEVEL}: write off, error, warn, info, \
             debug or trace"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_one_line() {
        assert_eq!(line(Level::Warn, "no luck"), "WARN no luck\n");
        assert_eq!(line(Level::Warn, "a\nERROR b\r\u{1b}[0m\tü"), "WARN a\\nERROR b\\r\\u{1b}[0m\tü\n");
    }

    #[test]
    fn one_panic_is_one_line() {
        let here = std::panic::Location::caller();
        let line = panicked(Some(here), Some("no luck\nINFO all is well"));
        assert_eq!(line, format!("ERROR panicked at {here}: no luck\\nINFO all is well\n"));
    }
}
