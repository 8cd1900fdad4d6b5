#!/bin/sh
# Builds the crate in function/ and leaves function.wasm beside this script. Needs cargo and the target wasm32-wasip2.
set -eu
cd "$(dirname "$0")"

fail() { echo "build.sh: $*" >&2; exit 1; }
command -v cargo >/dev/null || fail "cargo is missing: install Rust as https://rustup.rs says"
[ -f function/Cargo.toml ] || fail "function/Cargo.toml is missing: the function's crate goes into function/"
std=$("${RUSTC:-rustc}" --print target-libdir --target wasm32-wasip2)
[ -d "$std" ] || fail "Rust's target wasm32-wasip2 is missing: rustup target add wasm32-wasip2"

# Flags for the machine's own processor mean nothing to WebAssembly.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
rm -f function.wasm
# All functions' crates have one name: in one target folder, builds at the same time would take each other's component.
target=$PWD/function/target
[ -z "${CARGO_TARGET_DIR:-}" ] || target=$CARGO_TARGET_DIR/function-$(printf %s "$PWD" | cksum | cut -d ' ' -f 1)
# What is wrong with the code goes to the terminal, with lines of src/lib.rs, and where the component is comes as JSON.
built=$(cd function && cargo build --release --target wasm32-wasip2 --target-dir "$target" \
  --message-format json-render-diagnostics)
component=$(printf '%s\n' "$built" | sed -n 's/.*"filenames":\[[^]]*"\([^"]*\.wasm\)".*/\1/p' | tail -n 1)
[ -n "$component" ] || fail 'no component was built: function/Cargo.toml needs [lib] with crate-type = ["cdylib"]'
cp "$component" function.wasm
