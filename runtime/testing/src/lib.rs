//! A fake Provider, the contract suite and tiny guests, for tests only.

//!
//! Nobody ships this: it is a dev-dependency only. Its one invariant: [`FakeProvider`] passes [`provider_suite`], so
//! that a test against the fake is a test against any provider.

mod fake;
pub mod guests;
mod suite;

pub use fake::FakeProvider;
pub use suite::provider_suite;
