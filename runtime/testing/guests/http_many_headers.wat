  ;; Adds headers until the host refuses one or a million are there, and answers with them.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "response" (func $response (param $headers i32) (result i32)))
    (import "answer" "send" (func $send (param $out i32) (param $response i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "piece" (func $piece (param $stream i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $headers i32) (local $count i32) (local $body i32) (local $stream i32)
      (local.set $headers (call $fields))
      (loop $next
        (call $append (local.get $headers) (i32.const 64) (i32.const 12) (i32.const 80) (i32.const 10) (i32.const 0))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br_if $next (i32.and
          (i32.eqz (i32.load8_u (i32.const 0)))
          (i32.lt_u (local.get $count) (i32.const 1000000)))))
      (local.set $body (call $send (local.get $out) (call $response (local.get $headers))))
      (local.set $stream (call $open (local.get $body)))
      (call $piece (local.get $stream))
      (call $end (local.get $stream) (local.get $body))))
