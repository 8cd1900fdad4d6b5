#!/bin/sh
# Leaves function.wasm beside this script: what function/build.sh makes, else the one .wasm file of function/.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
rm -f function.wasm
if [ -f function/build.sh ]; then
  rm -f function/function.wasm
  (cd function && sh build.sh) || fail "function/build.sh failed"
  [ -f function/function.wasm ] || fail "function/build.sh left no function.wasm in its folder"
  set -- function/function.wasm
else
  set -- function/*.wasm
  [ -f "$1" ] || fail "function/ has neither a .wasm file nor a build.sh that makes one"
  [ $# = 1 ] || fail "function/ has more than one .wasm file: $*; leave one"
fi
# A module and a component begin so (WebAssembly binary format §5.5.16).
[ "$(head -c 4 "$1" | od -An -tx1 | tr -d ' ')" = 0061736d ] || fail "$1 is no WebAssembly: it does not begin with \\0asm"
cp "$1" function.wasm
