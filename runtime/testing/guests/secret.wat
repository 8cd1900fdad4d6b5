;; Prints the file "token" of the first directory that was opened for it, or "none\n" if it cannot be opened.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  ;; At 0 a count, at 8 a buffer's address and length, at 16 the file's number, from 64 the texts, then the buffer.
  (memory (export "memory") 1)
  (data (i32.const 64) "tokennone\n")

  (func $buffer (param $at i32) (param $length i32)
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (local.get $length)))

  (func $print
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))))

  (func (export "_start")
    ;; Rights: to read (2).
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 5)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16))
      (then
        (call $buffer (i32.const 69) (i32.const 5))
        (call $print))
      (else
        (loop $next
          (call $buffer (i32.const 1024) (i32.const 4096))
          (if (call $fd_read (i32.load (i32.const 16)) (i32.const 8) (i32.const 1) (i32.const 0))
            (then unreachable))
          (if (i32.load (i32.const 0)) (then
            (call $buffer (i32.const 1024) (i32.load (i32.const 0)))
            (call $print)
            (br $next))))))))
