#!/bin/sh
# Leaves function.wasm in this folder. Replace it by what builds your module, or by the module itself.
set -eu
if command -v wasm-tools >/dev/null; then
  wasm-tools parse hello.wat -o function.wasm
else
  wat2wasm hello.wat -o function.wasm
fi
