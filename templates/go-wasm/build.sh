#!/bin/sh
# Builds the package in function/ and leaves function.wasm beside this script. Needs Go 1.24 or newer, and for
# Handle(http.ResponseWriter, *http.Request) wasm-tools and the adapter of WASI preview 1 for reactors.
set -eu
cd "$(dirname "$0")"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
command -v go >/dev/null || fail "go is missing: install Go as https://go.dev/doc/install says"
rm -rf build function.wasm && mkdir build
# Flags for the machine's own programs mean nothing to WebAssembly.
unset GOFLAGS GOEXPERIMENT GOWORK
[ -f function/go.mod ] || (cd function && go mod init handler/function)
# For whatever Go the function wants.
rm -f go.work go.work.sum && go work init . ./function
export GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0
compile() {
  said=$(go build -trimpath -buildvcs=false -ldflags='-s -w' "$@" . 2>&1) && return
  # This folder is a copy, and what `go get` did here would be gone with the next build.
  printf '%s\n' "$said" | sed "s#cd $PWD/function#cd to the folder of handler.go, which this one is a copy of#" >&2
  return 1
}

# Nothing for what does not parse, which the compiler tells about.
case $(go doc handler/function.Handle 2>/dev/null) in
  *http.ResponseWriter*)
    command -v wasm-tools >/dev/null || fail "wasm-tools is missing: cargo install wasm-tools"
    [ -f "${WASI_ADAPTER:=wasi_snapshot_preview1.reactor.wasm}" ] ||
      fail "$WASI_ADAPTER is missing: get it from a release of github.com/bytecodealliance/wasmtime," \
        "and name it in WASI_ADAPTER"
    compile -tags requests -buildmode=c-shared -o build/core.wasm
    wasm-tools component embed wit --world handler build/core.wasm -o build/embedded.wasm
    wasm-tools component new build/embedded.wasm --adapt "wasi_snapshot_preview1=$WASI_ADAPTER" -o function.wasm
    ;;
  '' | *'[]byte) string'*) compile -o function.wasm ;;
  *)
    fail "$(grep -n '^func Handle' function/*.go /dev/null)" \
      "is neither func([]byte) string nor func(http.ResponseWriter, *http.Request)"
    ;;
esac
rm -rf build
