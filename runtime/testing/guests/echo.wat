;; Copies standard input to standard output, 64 KiB at a time. Exits with 1 if either fails.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; The second page is the buffer. At 0 a count, at 8 a buffer's address and length.
  (memory (export "memory") 2)

  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (i32.const 1)))))

  ;; Writes `$length` bytes of the buffer. A write may take fewer than it is given, so go on with the rest.
  (func $write (param $length i32)
    (i32.store (i32.const 8) (i32.const 65536))
    (loop $rest
      (i32.store (i32.const 12) (local.get $length))
      (call $check (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
      (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.load (i32.const 0))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 0))))
      (br_if $rest (local.get $length))))

  (func (export "_start")
    (loop $next
      (i32.store (i32.const 8) (i32.const 65536))
      (i32.store (i32.const 12) (i32.const 65536))
      (call $check (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 0)))
      ;; No bytes are the end.
      (if (i32.load (i32.const 0)) (then
        (call $write (i32.load (i32.const 0)))
        (br $next))))))
