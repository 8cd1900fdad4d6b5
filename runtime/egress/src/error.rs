use std::{io, time::Duration};

/// What egress answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a policy is not one, or a destination was not reached. Callers match on it to tell guests what happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a policy.
    #[error("egress policy: {entry:?} {problem}")]
    InvalidPolicy {
        /// The part of the text that is wrong.
        entry: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
    /// The policy does not let anyone there. Says nothing of what a name resolved to.
    #[error(
        "{host}:{port} may not be reached under the egress policy; allow it with the annotation dev.fawn.egress"
    )]
    Denied {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
    },
    /// The name has no address.
    #[error("{host:?} has no address")]
    NameNotFound {
        /// The host asked for.
        host: String,
        /// What the resolver said.
        #[source]
        source: Option<io::Error>,
    },
    /// Looking the name up took too long.
    #[error("looking up {host:?} took longer than {limit:?}")]
    NameTimedOut {
        /// The host asked for.
        host: String,
        /// The time allowed.
        limit: Duration,
    },
    /// No address took the connection.
    #[error("cannot connect to {host}:{port}")]
    ConnectFailed {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// What the last address tried said.
        #[source]
        source: io::Error,
    },
    /// No address took the connection in time.
    #[error("connecting to {host}:{port} took longer than {limit:?}")]
    ConnectTimedOut {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// The time allowed.
        limit: Duration,
    },
    /// The other side did not prove to be who it should be, or speaks no TLS.
    #[error("no TLS with {host}")]
    TlsFailed {
        /// The host asked for.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The request cannot be sent as it is.
    #[error("request cannot be sent: {0}")]
    InvalidRequest(&'static str),
    /// The answer did not begin in time.
    #[error("{host} sent no answer within {limit:?}")]
    AnswerTimedOut {
        /// The host asked for.
        host: String,
        /// The time allowed.
        limit: Duration,
    },
    /// The exchange broke off or was not HTTP.
    #[error("the exchange with {host} failed")]
    HttpFailed {
        /// The host asked for.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}
