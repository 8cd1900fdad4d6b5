#!/bin/sh
# Leaves function.wasm beside this script: the handler in function/, its packages, and Python itself.
# Needs componentize-py, and pip where function/requirements.txt names packages.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
command -v componentize-py >/dev/null || fail "componentize-py is missing: pip install componentize-py==0.25.0"
[ -f function/handler.py ] || fail "function/handler.py is missing: it holds the function's handle"

rm -rf build function.wasm && mkdir -p build/venv/lib/site-packages
# Of a copy: what Python compiles it keeps beside the source.
cp -R app.py calls.py imports.py function build/
if grep -q '^[[:space:]]*[^#[:space:]]' function/requirements.txt 2>/dev/null; then
  # Packages with machine code cannot run in a module, and are refused by name.
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --platform any \
    --only-binary=:all: --target build/venv/lib/site-packages -r function/requirements.txt
fi
# The machine's own packages are no part of it.
export VIRTUAL_ENV=$PWD/build/venv RUST_BACKTRACE=0
# What Python says comes first, about files below /0; then how componentize-py came to know.
componentize-py -q -d wit -w handler componentize -p build app -o function.wasm 2>build/errors || {
  sed '/^Caused by/,$d; s|/0/||' build/errors >&2
  exit 1
}
rm -rf build
