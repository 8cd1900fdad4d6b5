  ;; Answers with the status that the path names, such as /404 or /99, and the body "piece\n". If the host refuses
  ;; that status, the answer is 200 with no body.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "path" (func $path (param $request i32) (param $result i32)))
    (import "host" "response" (func $response (param $headers i32) (result i32)))
    (import "host" "set-status" (func $set-status (param $response i32) (param $status i32) (result i32)))
    (import "answer" "text" (func $text (result i32)))
    (import "answer" "send" (func $send (param $out i32) (param $response i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "piece" (func $piece (param $stream i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))

    ;; The decimal digits after the path's slash, as a number of 16 bits.
    (func $wanted (param $request i32) (result i32)
      (local $at i32) (local $end i32) (local $number i32) (local $digit i32)
      (call $path (local.get $request) (i32.const 0))
      (local.set $at (i32.load (i32.const 4)))
      (local.set $end (i32.add (local.get $at) (i32.load (i32.const 8))))
      (loop $next
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (if (i32.lt_u (local.get $at) (local.get $end)) (then
          (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
          (if (i32.lt_u (local.get $digit) (i32.const 10)) (then
            (local.set $number (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $digit)))
            (br $next))))))
      (i32.and (local.get $number) (i32.const 0xffff)))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $response i32) (local $refused i32) (local $body i32) (local $stream i32)
      (local.set $response (call $response (call $text)))
      (local.set $refused (call $set-status (local.get $response) (call $wanted (local.get $request))))
      (local.set $body (call $send (local.get $out) (local.get $response)))
      (local.set $stream (call $open (local.get $body)))
      (if (i32.eqz (local.get $refused)) (then (call $piece (local.get $stream))))
      (call $end (local.get $stream) (local.get $body))))
