//! The numbers that the README quotes.
fn main() {}
