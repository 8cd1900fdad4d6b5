;; Prints "out 1\n", "err 1\n", "out 2\n", "err 2\n", to standard output and standard error in turn.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "out 1\n" "err 1\n" "out 2\n" "err 2\n")
  (func $print (param $fd i32) (param $at i32)
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (i32.const 6))
    (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 0))))
  (func (export "_start")
    (call $print (i32.const 1) (i32.const 32))
    (call $print (i32.const 2) (i32.const 38))
    (call $print (i32.const 1) (i32.const 44))
    (call $print (i32.const 2) (i32.const 50))))
