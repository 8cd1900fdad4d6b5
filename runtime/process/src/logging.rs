use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{self, LevelFilter},
    fmt,
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt,
    registry,
};

use crate::log_queue::{LogGuard, LogQueue};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why there can be no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?} is not valid: {source}; write it like \"info\" or \"info,runtime_wasm=debug\""
    )]
    UnknownFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: filter::ParseError,
    },
    /// A part of the filter is no level and names no level for a module: a misspelt one would switch the log off.
    #[error(
        "log filter {filter:?} is not valid: {part:?} is no level; write error, warn, info, debug, trace or off, or \
         MODULE=LEVEL"
    )]
    UnknownLevel {
        /// What was given.
        filter: String,
        /// The part.
        part: String,
    },
    /// The operating system gives no thread to write from.
    #[error("the log's thread cannot be started")]
    NoThread(#[from] io::Error),
}

/// Logs to standard error, coloured only on a terminal. The caller installs it, and holds the guard to the end.
///
/// Nobody waits for standard error: where nothing reads it in time, lines are dropped, and later it is said how many.
///
/// # Errors
/// The filter does not parse, or there is no thread to write from.
pub fn subscriber(
    filter: &str,
    format: LogFormat,
) -> Result<(impl Subscriber + Send + Sync, LogGuard), LogError> {
    let bare = filter.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(['=', '[']));
    if let Some(part) = bare.into_iter().find(|part| part.parse::<LevelFilter>().is_err()) {
        return Err(LogError::UnknownLevel { filter: filter.to_owned(), part: part.to_owned() });
    }
    let directives = EnvFilter::try_new(filter)
        .map_err(|source| LogError::UnknownFilter { filter: filter.to_owned(), source })?;
    let (queue, guard) = LogQueue::start(io::stderr(), move |dropped| note(dropped, format))?;
    let lines = fmt::layer().with_writer(move || queue.clone()).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((registry().with(directives).with(lines), guard))
}

/// The line that tells of others, which no filter may hide.
fn note(dropped: u64, format: LogFormat) -> String {
    let mut now = String::new();
    // A time that cannot be told is left out.
    let _ = fmt::time::SystemTime.format_time(&mut Writer::new(&mut now));
    let message = format!("{dropped} log lines were dropped: standard error was not read in time");
    match format {
        LogFormat::Text => format!("{now}  WARN {message}\n"),
        LogFormat::Json => {
            format!("{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{message}\"}}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        assert!(subscriber("info,hyper=warn", LogFormat::Json).is_ok());
        let error = subscriber("fawn=loud", LogFormat::Text).err().unwrap().to_string();
        assert!(error.contains("fawn=loud"), "{error}");
        for (filter, part) in
            [("inof", "inof"), ("info, warning", "warning"), ("runtime_wasm", "runtime_wasm")]
        {
            let error = subscriber(filter, LogFormat::Text).err().unwrap().to_string();
            assert!(error.contains(&format!("{part:?} is no level")), "{error}");
        }
    }

    #[test]
    fn dropped_lines_are_told_of_in_the_format_of_the_log() {
        let (text, json) = (note(3, LogFormat::Text), note(3, LogFormat::Json));
        assert!(text.starts_with("20") && text.contains(" WARN 3 log lines were dropped"), "{text}");
        let says = "Z\",\"level\":\"WARN\",\"message\":\"3 log lines were dropped";
        assert!(json.starts_with("{\"timestamp\":\"20") && json.contains(says), "{json}");
        assert!(text.ends_with('\n') && json.ends_with("\"}\n"));
    }
}
