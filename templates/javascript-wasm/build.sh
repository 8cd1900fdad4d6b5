#!/bin/sh
# Bundles the handler in function/ and leaves function.wasm beside this script: the bundle and a JavaScript engine.
# Needs Node.js; takes rolldown, componentize-js and, for TypeScript, tsc from PATH, else installs them here.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
# quietly COMMAND…: what it prints only if it fails, without where in the tool it was.
quietly() {
  "$@" >build/log 2>&1 && return
  sed '/^ *at .*\(node_modules\|file:\)/d; /^file:/,/^$/d; /^Exception while evaluating/,$d' build/log >&2
  exit 1
}
command -v node >/dev/null || fail "node is missing: install Node.js 20 or newer"
[ -f function/handler.js ] || [ -f function/handler.ts ] || fail "function/ has no handler.js or handler.ts"

rm -rf build function.wasm && mkdir build
PATH=$PWD/node_modules/.bin:$PATH
check=$([ ! -f tsconfig.json ] || echo tsc)
for tool in rolldown componentize-js $check; do
  command -v $tool >/dev/null || { npm install --no-audit --no-fund --silent && break; }
done
# Unless they are there already.
if [ -f function/package.json ] && [ ! -d function/node_modules ]; then
  npm install --prefix function --omit=dev --no-audit --no-fund --silent
fi

[ -z "$check" ] || tsc --project . --pretty false
quietly rolldown --config rolldown.config.mjs
# The handler is loaded once it is known where each line comes from, which an error at load needs.
node lines.mjs build/bundle.js >build/lines
{ echo; echo "load($(cat build/lines));"; } >>build/bundle.js
quietly componentize-js build/bundle.js --wit wit -n handler -o function.wasm
rm -rf build
