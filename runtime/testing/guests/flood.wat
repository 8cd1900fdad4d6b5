;; Writes 64 KiB of the letter `x`, with no line break, to standard output for ever.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 8) "\00\00\01\00" "\00\00\01\00")
  (func (export "_start")
    (memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
    (loop $again
      (br_if $again (i32.eqz (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))))
