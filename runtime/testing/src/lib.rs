//! A fake Provider, the contract suite and tiny guests, for tests only.

pub mod guests;
