use std::io;

use runtime_api::FunctionName;

/// What a queue answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether there is no more wrong than that the disk has no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::StorageFull | Self::Unusable(runtime_store::Error::Full { .. }))
    }
}

/// Why a queue cannot do what was asked. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk has no room for more calls. It may have, later.
    #[error("the disk of the queue is full: free some space and try again")]
    StorageFull,
    /// This function has as many calls, or bytes of calls, as one may have. Others may have room.
    #[error(
        "the queue of {function} is full with {calls} calls of {bytes} bytes, {dead} of them dead letters: \
             try again later, or purge dead letters"
    )]
    FunctionFull {
        /// The function.
        function: FunctionName,
        /// How many calls it has, dead letters among them.
        calls: u64,
        /// How many bytes these take.
        bytes: u64,
        /// How many are dead letters.
        dead: u64,
    },
    /// All functions together have as many calls, or bytes of calls, as the queue takes.
    #[error(
        "the queue is full: try again later; an operator makes room with `fawn queue clear` and `fawn queue purge`"
    )]
    QueueFull,
    /// A part of the call is larger than the queue takes.
    #[error("{what} of the call is larger than {limit_bytes} bytes, which the queue takes at most")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The limit.
        limit_bytes: u64,
    },
    /// The queue is busy with others, or with its own house-keeping, for longer than one may wait.
    #[error("the queue is busy: try again in a second")]
    Busy,
    /// The caller's own body broke off.
    #[error("the body of the call cannot be read")]
    Body(#[source] io::Error),
    /// The queue cannot be opened, or not yet.
    #[error("the queue cannot be opened")]
    Unusable(#[from] runtime_store::Error),
    /// A write failed at an unknown point. Nothing more is accepted until a restart; what was asked for may have
    /// happened.
    #[error("the queue stopped: {0}; look after the disk, then restart")]
    Stopped(String),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}
