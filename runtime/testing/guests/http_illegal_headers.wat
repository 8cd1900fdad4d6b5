  ;; Tries to answer with headers that frame messages or are none, and writes one letter for each try: `y` if the
  ;; host took it, `n` if it refused. The tries, in order: transfer-encoding, connection, upgrade, keep-alive, a value
  ;; with a line break, a value with a zero byte, a name with a space, an empty name.
  (core module $Main
    (import "host" "memory" (memory 2))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "response" (func $response (param $headers i32) (result i32)))
    (import "answer" "send" (func $send (param $out i32) (param $response i32) (result i32)))
    (import "answer" "open" (func $open (param $body i32) (result i32)))
    (import "answer" "print" (func $print (param $stream i32) (param $at i32) (param $length i32)))
    (import "answer" "end" (func $end (param $stream i32) (param $body i32)))
    ;; Names and values in turn, each behind its length.
    (data (i32.const 1024)
      "\11transfer-encoding" "\07chunked"
      "\0aconnection" "\05close"
      "\07upgrade" "\03h2c"
      "\0akeep-alive" "\011"
      "\05x-two" "\07a\0d\0ab: c"
      "\05x-nul" "\03a\00b"
      "\03a b" "\01c"
      "\00" "\01c")

    (func (export "handle") (param $request i32) (param $out i32)
      (local $headers i32) (local $name i32) (local $value i32) (local $count i32)
      (local $body i32) (local $stream i32)
      (local.set $headers (call $fields))
      (local.set $name (i32.const 1024))
      (loop $next
        (local.set $value (i32.add (i32.add (local.get $name) (i32.const 1)) (i32.load8_u (local.get $name))))
        (call $append (local.get $headers)
          (i32.add (local.get $name) (i32.const 1)) (i32.load8_u (local.get $name))
          (i32.add (local.get $value) (i32.const 1)) (i32.load8_u (local.get $value)) (i32.const 0))
        (i32.store8 offset=2048 (local.get $count)
          (select (i32.const 110) (i32.const 121) (i32.load8_u (i32.const 0))))
        (local.set $name (i32.add (i32.add (local.get $value) (i32.const 1)) (i32.load8_u (local.get $value))))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $count) (i32.const 8))))
      (local.set $body (call $send (local.get $out) (call $response (local.get $headers))))
      (local.set $stream (call $open (local.get $body)))
      (call $print (local.get $stream) (i32.const 2048) (i32.const 8))
      (call $end (local.get $stream) (local.get $body))))
