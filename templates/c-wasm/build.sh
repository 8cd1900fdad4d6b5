#!/bin/sh
# Compiles the C files of function/, but for *_test.c, and leaves function.wasm beside this script. Needs zig, or the
# WASI SDK that WASI_SDK_PATH names.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
if [ -n "${WASI_SDK_PATH:-}" ]; then
  set -- "$WASI_SDK_PATH/bin/clang"
elif command -v zig >/dev/null; then
  set -- zig cc -target wasm32-wasi
else
  fail "zig is missing: install it as https://ziglang.org/learn/getting-started says," \
    "or install the WASI SDK, and name it in WASI_SDK_PATH"
fi

rm -f function.wasm
sources=$(find function -name '*.c' ! -name '*_test.c')
[ -n "$sources" ] || fail "function/ has no C file: handler.c defines handle, or main.c main"
[ -f function/main.c ] || sources="$sources main.c"
# Files' names have no spaces here. Asserts stay. With a stack as small as the WASI SDK makes it, what a call touches
# lies together, and stays in memory for the next one.
"$@" -Os -UNDEBUG -s -Wall -I. -Ifunction "-Wl,-z,stack-size=${STACK_BYTES:-65536}" $sources -o function.wasm
