  )
  (core instance $vault (instantiate $Vault))

  ;; Reads an order of six numbers from the request's body, obeys it in the memory of the other core module, and answers
  ;; with the eight bytes of its finding.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "consume" (func $consume (param $request i32) (param $result i32)))
    (import "host" "input" (func $input (param $body i32) (param $result i32)))
    (import "host" "read" (func $read (param $stream i32) (param $at-most i64) (param $result i32)))
    (import "answer" "head" (func $head (param $out i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "print" (func $print (param $stream i32) (param $at i32) (param $length i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))
    (import "vault" "obey" (func $obey (param i32 i32 i32 i32 i32 i32 i32) (result i64)))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $order i32) (local $stream i32) (local $body i32)
      (call $consume (local.get $request) (i32.const 0))
      (call $input (i32.load (i32.const 4)) (i32.const 0))
      (call $read (i32.load (i32.const 4)) (i64.const 24) (i32.const 0))
      (if (i32.ne (i32.load (i32.const 8)) (i32.const 24)) (then unreachable))
      (local.set $order (i32.load (i32.const 4)))
      (i64.store (i32.const 1024) (call $obey
        (i32.load (local.get $order)) (i32.const 0)
        (i32.load offset=4 (local.get $order)) (i32.load offset=8 (local.get $order))
        (i32.load offset=12 (local.get $order)) (i32.load offset=16 (local.get $order))
        (i32.load offset=20 (local.get $order))))
      (local.set $body (call $head (local.get $out)))
      (local.set $stream (call $open (local.get $body)))
      (call $print (local.get $stream) (i32.const 1024) (i32.const 8))
      (call $end (local.get $stream) (local.get $body))))

  (core instance $main (instantiate $Main
    (with "host" (instance $host)) (with "answer" (instance $answer)) (with "vault" (instance $vault))))
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $main "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
