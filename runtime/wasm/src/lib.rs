//! An artifact in, answers out: the Wasmtime engine, compilation, instance pools.
