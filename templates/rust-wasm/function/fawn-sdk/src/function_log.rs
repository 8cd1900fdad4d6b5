//! Lines for the function's log: the node keeps what is written to standard error.

use std::str::FromStr;

use log::{LevelFilter, Log, Metadata, Record};

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
        eprint!("{}", line(record));
    }

    fn flush(&self) {}
}

/// One line, whatever the message holds: what a caller sent must not look like a line of its own.
fn line(record: &Record<'_>) -> String {
    let mut line = format!("{} ", record.level());
    for letter in record.args().to_string().chars() {
        if letter.is_control() && letter != '\t' {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line.push('\n');
    line
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
        let record = |text| line(&Record::builder().level(log::Level::Warn).args(text).build());
        assert_eq!(record(format_args!("no luck")), "WARN no luck\n");
        assert_eq!(record(format_args!("a\nERROR b\r\u{1b}[0m\tü")), "WARN a\\nERROR b\\r\\u{1b}[0m\tü\n");
    }
}
