;; Prints its environment: one NAME=value a line.
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  ;; At 0 how many texts there are, at 4 their bytes in all, at 8 the buffer to write. From the second page on lie the
  ;; addresses, and behind them the texts, one after another, each with a zero byte at its end.
  (memory (export "memory") 4)

  (func (export "_start")
    (local $at i32) (local $end i32)
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (local.set $at (i32.add (i32.const 65536) (i32.mul (i32.load (i32.const 0)) (i32.const 4))))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 4))))
    (drop (call $get (i32.const 65536) (local.get $at)))
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (i32.load (i32.const 4)))
    ;; Each zero byte becomes a line feed.
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 10))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))
