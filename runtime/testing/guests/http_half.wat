  ;; Writes one piece and drops the body without finishing it.
  (core module $Main
    (import "host" "drop-output" (func $drop-output (param $stream i32)))
    (import "host" "drop-body" (func $drop-body (param $body i32)))
    (import "answer" "head" (func $head (param $out i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "piece" (func $piece (param $stream i32)))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $body i32) (local $stream i32)
      (local.set $body (call $head (local.get $out)))
      (local.set $stream (call $open (local.get $body)))
      (call $piece (local.get $stream))
      (call $drop-output (local.get $stream))
      (call $drop-body (local.get $body))))
