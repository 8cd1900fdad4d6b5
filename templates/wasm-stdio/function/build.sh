#!/bin/sh
# Leaves function.wasm in this folder. Replace it by what builds your module, or by the module itself.
set -eu
if command -v wasm-tools >/dev/null; then
  wasm-tools parse hello.wat -o function.wasm
elif command -v wat2wasm >/dev/null; then
  wat2wasm hello.wat -o function.wasm
else
  echo "build.sh: wasm-tools is missing: cargo install wasm-tools, or install wabt, which has wat2wasm" >&2
  exit 1
fi
