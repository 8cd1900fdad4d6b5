//! Joins store, registry and engine into a Provider.
