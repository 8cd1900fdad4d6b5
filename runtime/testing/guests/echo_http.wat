  ;; Streams the request body back, piece by piece, through 64 KiB of its own memory, with the request's content-type.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "free" (global $free (mut i32)))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "headers" (func $headers (param $request i32) (result i32)))
    (import "host" "get" (func $get (param $fields i32) (param $name i32) (param $length i32) (param $result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "response" (func $response (param $fields i32) (result i32)))
    (import "host" "consume" (func $consume (param $request i32) (param $result i32)))
    (import "host" "input" (func $input (param $body i32) (param $result i32)))
    (import "host" "read" (func $read (param $stream i32) (param $at-most i64) (param $result i32)))
    (import "host" "check-write" (func $check-write (param $stream i32) (param $result i32)))
    (import "host" "write" (func $write (param $stream i32) (param $at i32) (param $length i32) (param $result i32)))
    (import "host" "subscribe" (func $subscribe (param $stream i32) (result i32)))
    (import "host" "block" (func $block (param $pollable i32)))
    (import "host" "drop-pollable" (func $drop-pollable (param $pollable i32)))
    (import "answer" "send" (func $send (param $out i32) (param $response i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))

    ;; Headers with the content-type of the request, if it has one.
    (func $same-type (param $request i32) (result i32)
      (local $headers i32) (local $value i32)
      (local.set $headers (call $fields))
      (call $get (call $headers (local.get $request)) (i32.const 64) (i32.const 12) (i32.const 0))
      (if (i32.load (i32.const 4)) (then
        (local.set $value (i32.load (i32.const 0)))
        (call $append (local.get $headers) (i32.const 64) (i32.const 12)
          (i32.load (local.get $value)) (i32.load offset=4 (local.get $value)) (i32.const 0))))
      (local.get $headers))

    ;; How many bytes may be written now, at most 64 KiB. Waits while that is none; zero means that nobody reads.
    (func $permit (param $stream i32) (result i64)
      (local $pollable i32)
      (loop $again
        (call $check-write (local.get $stream) (i32.const 0))
        (if (i32.load8_u (i32.const 0)) (then (return (i64.const 0))))
        (if (i64.eqz (i64.load (i32.const 8))) (then
          (local.set $pollable (call $subscribe (local.get $stream)))
          (call $block (local.get $pollable))
          (call $drop-pollable (local.get $pollable))
          (br $again))))
      (select (i64.load (i32.const 8)) (i64.const 65536) (i64.lt_u (i64.load (i32.const 8)) (i64.const 65536))))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $from i32) (local $body i32) (local $to i32) (local $permit i64)
      (local.set $body (call $send (local.get $out) (call $response (call $same-type (local.get $request)))))
      (local.set $to (call $open (local.get $body)))
      (call $consume (local.get $request) (i32.const 0))
      (call $input (i32.load (i32.const 4)) (i32.const 0))
      (local.set $from (i32.load (i32.const 4)))
      (loop $next
        (local.set $permit (call $permit (local.get $to)))
        (if (i64.eqz (local.get $permit)) (then return))
        ;; Each piece is put where the last one was.
        (global.set $free (i32.const 65536))
        (call $read (local.get $from) (local.get $permit) (i32.const 0))
        (if (i32.eqz (i32.load8_u (i32.const 0))) (then
          (call $write (local.get $to) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 0))
          (br $next))))
      ;; The stream closed: the body is whole. It failed: the answer is left without an end, so that nobody takes the
      ;; half for the whole.
      (if (i32.load (i32.const 4)) (then (call $end (local.get $to) (local.get $body))))))
