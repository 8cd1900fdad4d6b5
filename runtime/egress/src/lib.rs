//! Which addresses guests, callbacks and registry redirects may reach, and the only way they get there.
//!
//! It is no proxy and knows nothing of functions: it gets a policy and a destination, and connects or refuses.
//! Its one invariant: every connection goes to an address that was itself checked, never to a name looked up again.

mod address;
mod connect;
mod error;
mod policy;
mod send;
mod tls;

pub use connect::{connect, may_reach, resolve};
pub use error::{Error, Result};
pub use policy::Policy;
pub use send::{ResponseBody, Timeouts, send};
