//! What holds of every call, however many there are, whatever they do, and whatever becomes of them: a new instance for
//! each, its own answer, and nothing kept.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod bench;
mod bodies;
mod ends;
mod fresh;
mod hostile;
mod mixed;

/// Not a test of its own: the tests' binary run again as the compiling process.
#[test]
fn compile_child() {
    if std::env::var_os(bench::CHILD).is_some() {
        runtime_wasm::compile_child(std::io::stdin()).unwrap();
    }
}
