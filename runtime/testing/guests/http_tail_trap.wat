  ;; Answers in full and then traps.
  (core module $Main
    (import "answer" "head" (func $head (param $out i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "piece" (func $piece (param $stream i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $body i32) (local $stream i32)
      (local.set $body (call $head (local.get $out)))
      (local.set $stream (call $open (local.get $body)))
      (call $piece (local.get $stream))
      (call $end (local.get $stream) (local.get $body))
      unreachable))
