//! Calls that are kept and run later, over real sockets and a real queue.

mod accepting;
mod callbacks;
mod cancelling;
mod chains;
mod counting;
mod ending;
mod hostile;
mod keeping;
mod limits;
mod looking;
mod queued;
mod retries;
mod target;

pub(crate) use queued::Queued;
