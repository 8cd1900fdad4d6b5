;; Greets whoever stands on standard input, up to the first line break: "Hello, Ada!\n". With no input it prints
;; "Hello from Fawn\n". The smallest useful command: two calls of the host.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  (data (i32.const 16) "Hello from Fawn\n")
  ;; The name is read to behind its greeting, so that one write takes both.
  (data (i32.const 249) "Hello, ")
  ;; Buffers, each as address and length: the input, the plain greeting, the greeting by name.
  (data (i32.const 64) "\00\01\00\00" "\00\04\00\00" "\10\00\00\00" "\10\00\00\00" "\f9\00\00\00" "\00\00\00\00")

  ;; The length of the name at 256, of which `$read` bytes were read.
  (func $name-length (param $read i32) (result i32)
    (local $length i32)
    (loop $next
      (if (i32.lt_u (local.get $length) (local.get $read)) (then
        ;; Every byte below a space ends it: line feed, carriage return.
        (if (i32.ge_u (i32.load8_u offset=256 (local.get $length)) (i32.const 32)) (then
          (local.set $length (i32.add (local.get $length) (i32.const 1)))
          (br $next))))))
    (local.get $length))

  (func (export "_start")
    (local $length i32)
    ;; A failed read, as of a closed input, leaves the count at 0 and counts as no input.
    (drop (call $fd_read (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 0)))
    (local.set $length (call $name-length (i32.load (i32.const 0))))
    (if (local.get $length)
      (then
        ;; "!\n", as the number that these two bytes make.
        (i32.store16 offset=256 (local.get $length) (i32.const 0x0a21))
        (i32.store (i32.const 84) (i32.add (local.get $length) (i32.const 9)))
        (drop (call $fd_write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 0))))
      (else
        (drop (call $fd_write (i32.const 1) (i32.const 72) (i32.const 1) (i32.const 0)))))))
