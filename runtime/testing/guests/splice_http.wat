  ;; Streams the request's body back without looking at it: the host moves the pieces.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "consume" (func $consume (param $request i32) (param $result i32)))
    (import "host" "input" (func $input (param $body i32) (param $result i32)))
    (import "host" "splice" (func $splice (param $to i32) (param $from i32) (param $at-most i64) (param $result i32)))
    (import "answer" "head" (func $head (param $out i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $from i32) (local $body i32) (local $to i32)
      (local.set $body (call $head (local.get $out)))
      (local.set $to (call $open (local.get $body)))
      (call $consume (local.get $request) (i32.const 0))
      (call $input (i32.load (i32.const 4)) (i32.const 0))
      (local.set $from (i32.load (i32.const 4)))
      (loop $next
        (call $splice (local.get $to) (local.get $from) (i64.const 65536) (i32.const 0))
        (br_if $next (i32.eqz (i32.load8_u (i32.const 0)))))
      ;; A result of u64 or error: what went wrong stands at 8. Closed is the end of the body.
      (if (i32.load (i32.const 8)) (then (call $end (local.get $to) (local.get $body))))))
