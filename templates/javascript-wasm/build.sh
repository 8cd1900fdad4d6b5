#!/bin/sh
# Bundles the handler in function/ and leaves function.wasm beside this script: the bundle and a JavaScript engine.
# Needs Node.js; takes rolldown, componentize-js and, for TypeScript, tsc from PATH if they are of the versions that
# package.json names, else installs them here.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
# quietly COMMAND…: what it prints only if it fails, without where in the tool it was.
quietly() {
  "$@" >build/log 2>&1 && return
  sed '/^ *at .*\(node_modules\|file:\)/d; /^file:/,/^$/d; /^Exception while evaluating/,$d' build/log >&2
  # What the engine cannot parse it tells of the bundle.
  refused=$(sed -n 's/^build\/bundle.js:\([0-9]*\):[0-9]* \(SyntaxError: .*\)/\1 \2/p' build/log | head -n 1)
  [ -z "$refused" ] || echo "$(node lines.mjs build/bundle.js "${refused%% *}"): ${refused#* }" >&2
  exit 1
}
# install FOLDER [OPTION…]: from npm what its package.json and lock name, unless the last build installed just that.
install() {
  named=$(cat "$1/package.json" "$1/package-lock.json" 2>/dev/null || true)
  installed=$1/node_modules/.installed
  if [ -f "$installed" ] && [ "$named" = "$(cat "$installed")" ]; then return; fi
  rm -f "$installed"
  # It leaves both files as they are.
  npm install --prefix "$@" --no-save --no-audit --no-fund --loglevel=error >/dev/null ||
    fail "npm could not install what $1/package.json names: see above"
  mkdir -p "$1/node_modules"
  printf '%s\n' "$named" >"$installed"
}
# pinned TOOL PACKAGE: whether PATH has the tool in the version of the package that package.json names.
pinned() { grep -q "\"$2\": \"$("$1" --version 2>/dev/null | sed 's/.*[ v]//')\"" package.json; }
command -v node >/dev/null || fail "node is missing: install Node.js 20 or newer"
[ -f function/handler.js ] || [ -f function/handler.ts ] || fail "function/ has no handler.js or handler.ts"

rm -rf build function.wasm && mkdir build
PATH=$PWD/node_modules/.bin:$PATH
check=$([ ! -f tsconfig.json ] || echo tsc)
if [ -d node_modules ] || ! pinned rolldown rolldown || ! pinned componentize-js @bytecodealliance/componentize-js ||
  { [ -n "$check" ] && ! pinned tsc typescript; }; then
  install .
fi
[ ! -f function/package.json ] || install function --omit=dev

[ -z "$check" ] || tsc --project . --pretty false
quietly rolldown --config rolldown.config.mjs
# The handler is loaded once it is known where each line comes from, which an error at load needs.
node lines.mjs build/bundle.js >build/lines
{ printf '\nload('; cat build/lines; printf ');\n'; } >>build/bundle.js
quietly componentize-js build/bundle.js --wit wit -n handler -o function.wasm
rm -rf build
