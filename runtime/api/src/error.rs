use std::{borrow::Cow, error::Error as StdError, time::Duration};

use thiserror::Error;

/// What a [`Provider`](crate::Provider) answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// Why an operation failed: one variant a cause, whatever library noticed it.
///
/// `Display` goes to the client; the chain of [`StdError::source`] goes to the log.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// There is something of that name already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request cannot be honoured as it stands; the text says what to change.
    #[error("{message}")]
    Invalid {
        /// A stable kebab-case word for scripts, sent as `X-Error-Code`.
        code: Cow<'static, str>,
        /// What was wrong, where, and what to do.
        message: String,
    },
    /// Whoever asks has not shown the right credentials.
    #[error("invalid credentials")]
    Unauthenticated {
        /// What to present, as `WWW-Authenticate` says it (RFC 9110 §11.6.1).
        challenge: Cow<'static, str>,
    },
    /// Too many wrong credentials came from where this request comes from.
    #[error("too many attempts with wrong credentials; try again later")]
    TooManyAttempts {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The function's own limit on calls in flight is reached.
    #[error("Concurrent request limit exceeded. Max concurrent requests: {max_inflight}")]
    TooManyCalls {
        /// The limit, as the function's spec gives it.
        max_inflight: u64,
    },
    /// As many calls of the function wait as may.
    #[error("{message}")]
    QueueFull {
        /// What there is too much of.
        message: String,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// No room on this node now; the same call may succeed later.
    #[error("{message}")]
    Overloaded {
        /// What there is not enough of.
        message: String,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// No room on this node's disk for what is new. What is there goes on.
    #[error("{0}")]
    StorageFull(String),
    /// Something that we depend on does not answer.
    #[error("{message}")]
    Unavailable {
        /// What does not answer.
        message: String,
        /// The reason below.
        #[source]
        source: Option<Source>,
    },
    /// The provider behind a gateway does not answer, or not in time.
    #[error("{message}")]
    Unreachable {
        /// Which provider, and what became of the request.
        message: String,
        /// The reason below.
        #[source]
        source: Option<Source>,
    },
    /// A registry that an image is wanted from, or to go to, does not answer.
    #[error("{message}")]
    RegistryUnavailable {
        /// Which registry, and what it said.
        message: String,
        /// The reason below.
        #[source]
        source: Option<Source>,
    },
    /// The time allowed is over.
    #[error("{0}")]
    TimedOut(String),
    /// The function itself failed: it trapped, or its answer cannot be sent.
    #[error("{message}")]
    FunctionFailed {
        /// A stable kebab-case word for scripts, sent as `X-Error-Code`.
        code: Cow<'static, str>,
        /// What it did, without internals.
        message: String,
        /// The trap and its backtrace, for the log.
        #[source]
        source: Option<Source>,
    },
    /// A defect of ours or of the machine; the client learns no more than the call id.
    #[error("internal error")]
    Internal(#[source] Source),
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { code: code.into(), message: message.into() }
    }

    /// An [`Error::Internal`] that wraps what a library said.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal(source.into())
    }

    /// An [`Error::Unavailable`] that wraps what a library said.
    pub fn unavailable(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable { message: message.into(), source: Some(source.into()) }
    }

    /// An [`Error::Unreachable`] that wraps what a library said.
    pub fn unreachable(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unreachable { message: message.into(), source: Some(source.into()) }
    }

    /// An [`Error::RegistryUnavailable`] that wraps what a library said.
    pub fn registry_unavailable(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::RegistryUnavailable { message: message.into(), source: Some(source.into()) }
    }

    /// Whose error this is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::Invalid { .. }
            | Self::Unauthenticated { .. }
            | Self::TooManyAttempts { .. }
            | Self::QueueFull { .. }
            | Self::TooManyCalls { .. } => Fault::Caller,
            Self::FunctionFailed { .. } | Self::TimedOut(_) => Fault::Function,
            Self::Overloaded { .. }
            | Self::StorageFull(_)
            | Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::RegistryUnavailable { .. }
            | Self::Internal(_) => Fault::Platform,
        }
    }

    /// A stable kebab-case word for scripts, sent as `X-Error-Code`.
    pub fn code(&self) -> &str {
        match self {
            Self::NotFound(_) => "not-found",
            Self::AlreadyExists(_) => "already-exists",
            Self::Invalid { code, .. } | Self::FunctionFailed { code, .. } => code,
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::TooManyAttempts { .. } => "too-many-attempts",
            Self::TooManyCalls { .. } => "over-limit",
            Self::QueueFull { .. } => "queue-full",
            Self::Overloaded { .. } => "no-capacity",
            Self::StorageFull(_) => "storage-full",
            Self::Unavailable { .. } => "unavailable",
            Self::Unreachable { .. } => "provider-unreachable",
            Self::RegistryUnavailable { .. } => "registry-unavailable",
            Self::TimedOut(_) => "timeout",
            Self::Internal(_) => "internal",
        }
    }
}

/// Whose error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller asked for something that cannot be had.
    Caller,
    /// The function's code misbehaved.
    Function,
    /// Fawn, the machine or a dependency failed.
    Platform,
}
