#!/bin/sh
# Leaves function.wasm beside this script: the handler in function/, its packages, and Python itself.
# Needs componentize-py, and pip where function/requirements.txt names packages, which stay in venv/ for the next build.
set -eu
cd "$(dirname "$0")"

# The Python that componentize-py puts into the module; the machine's own may be another.
componentize_py=0.25.0 python=3.14
say() { printf 'build.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
install="pip install componentize-py==$componentize_py"
command -v componentize-py >/dev/null || fail "componentize-py is missing: $install"
[ -f function/handler.py ] || fail "function/handler.py is missing: it holds the function's handle"
found=$(componentize-py --version) || fail "componentize-py does not start: $install"
[ "$found" = "componentize-py $componentize_py" ] ||
  say "$found may fail: this template is made for another version: $install"

rm -rf build function.wasm && mkdir build
# Of a copy: what Python compiles it keeps beside the source.
cp -R app.py calls.py imports.py outgoing.py function build/

packages=venv/lib/site-packages
{ echo "# For Python $python"; cat function/requirements.txt 2>/dev/null || true; } >build/requirements.txt
names() { grep -q "^[[:space:]]*$1" build/requirements.txt; }
for_module() {
  python3 -m pip "$@" --quiet --disable-pip-version-check --only-binary=:all: \
    --platform any --python-version $python --implementation py --abi none
}
# What options and paths lead to may change while the file stays as it is.
if ! cmp -s build/requirements.txt venv/requirements.txt || names '-' || names '[^#]*/'; then
  # Who copies folders knows by pyvenv.cfg that this one can be made again.
  rm -rf venv && mkdir -p "$packages" && : >venv/pyvenv.cfg
  if names '[^#[:space:]]'; then
    # Packages with machine code cannot run in a module, and are refused by name.
    for_module download --dest build/packages -r function/requirements.txt ||
      fail "function/requirements.txt can name what is pure Python and suits Python $python: see above"
    # Apart, since many a pip installs only what suits the machine's Python.
    set -- build/packages/*
    [ ! -e "$1" ] || for_module install --no-deps --no-index --ignore-requires-python --no-compile \
      --root-user-action ignore --target "$packages" "$@"
  fi
  cp build/requirements.txt venv/
fi

# The machine's own packages are no part of it.
export VIRTUAL_ENV=$PWD/venv RUST_BACKTRACE=0
# What Python says comes first, about files below /0; then how componentize-py came to know.
componentize-py -q -d wit -w handler componentize -p build app -o function.wasm 2>build/errors || {
  sed '/^Caused by/,$d; s|/0/||' build/errors >&2
  exit 1
}
rm -rf build
