use std::pin::Pin;

use futures_core::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{FunctionName, Result};

/// Which lines of a function's log are wanted (`OpenFaaS` logs Request).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Whose lines.
    pub function: FunctionName,
    /// Only those of this instance, if it is not empty.
    pub instance: String,
    /// Only so many of the newest; `None` means all.
    pub tail: Option<u64>,
    /// Only those since then. Without it and without `tail`, those of the last five minutes (`OpenFaaS`).
    pub since: Option<Timestamp>,
    /// Whether new lines are to follow as they are written, until the reader goes away.
    pub follow: bool,
}

/// One line of a function's log (`OpenFaaS` logs Message).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The function's name.
    pub name: String,
    /// The function's namespace.
    #[serde(default)]
    pub namespace: String,
    /// What wrote it.
    #[serde(default)]
    pub instance: String,
    /// When it was written.
    pub timestamp: Timestamp,
    /// The line, without its end.
    pub text: String,
}

/// Lines, oldest first.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogLine>> + Send>>;
