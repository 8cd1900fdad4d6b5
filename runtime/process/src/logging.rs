use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, registry};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// A log filter that does not parse.
#[derive(Debug, Error)]
#[error(
    "log filter {filter:?} is not valid: {source}; write it like \"info\" or \"info,runtime_wasm=debug\""
)]
pub struct UnknownFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Logs to standard error, coloured only on a terminal. The caller installs it.
///
/// # Errors
/// The filter does not parse.
pub fn subscriber(filter: &str, format: LogFormat) -> Result<impl Subscriber + Send + Sync, UnknownFilter> {
    let directives =
        EnvFilter::try_new(filter).map_err(|source| UnknownFilter { filter: filter.to_owned(), source })?;
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok(registry().with(directives).with(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        assert!(subscriber("info,hyper=warn", LogFormat::Json).is_ok());
        let error = subscriber("fawn=loud", LogFormat::Text).err().unwrap().to_string();
        assert!(error.contains("fawn=loud"), "{error}");
    }
}
