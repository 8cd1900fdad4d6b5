;; Writes lines with control characters to standard error for ever: what a log must not show as they are.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\10\00\00\00" "\0c\00\00\00" "\1b[31mred\07\00\ff\n")
  (func (export "_start")
    (loop $again
      (br_if $again (i32.eqz (call $fd_write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 0)))))))
