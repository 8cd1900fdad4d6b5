//! Runs WebAssembly functions behind the OpenFaaS API.
fn main() {}
