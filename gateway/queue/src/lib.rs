//! Asynchronous calls: accepted, kept until they have run, and those that could not run kept for a person to see.
//!
//! It knows what a call is and when it is due. It does not run calls, and knows neither HTTP routes nor providers.
//! Its one invariant: a call that was accepted is run to an end that is on record, or is a dead letter, or was
//! cancelled, whatever crashes; it is run at least once, and as seldom as that allows.

mod call;
mod delivery;
mod embedded;
mod error;
mod queue;
mod status;
#[cfg(test)]
mod suite;
mod unusable;

pub use call::{Accepted, ByteStream, Content, EntryId, NewCall};
pub use delivery::{Delivery, Lease, Outcome, Then};
pub use embedded::{Clock, Embedded, Limits, Settings};
pub use error::{Error, Result};
pub use queue::{Cancelled, Page, Queue, Room, Which};
pub use status::{Attempt, CallStatus, FunctionCounts, State};
pub use unusable::Unusable;
