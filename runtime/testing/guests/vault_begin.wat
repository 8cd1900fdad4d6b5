;; Reads an order of six numbers from standard input (what to do, pages, elements, step, run, byte), obeys it with what
;; `vault.wat` holds, and prints the eight bytes of its finding.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  ;; At 0 a buffer's address and length, at 8 a count, at 16 the order, at 48 the finding.
  (memory (export "memory") 4)
  (func (export "_start")
    (local $left i64)
    ;; What the order will be written over.
    (local.set $left (i64.or
      (i64.or (i64.or (i64.load (i32.const 0)) (i64.load (i32.const 8))) (i64.load (i32.const 16)))
      (i64.or
        (i64.or (i64.load (i32.const 24)) (i64.load (i32.const 32)))
        (i64.or (i64.load (i32.const 40)) (i64.or (i64.load (i32.const 48)) (i64.load (i32.const 56)))))))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 24))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (i32.ne (i32.load (i32.const 8)) (i32.const 24)) (then unreachable))
    (i64.store (i32.const 48) (call $obey
      (i32.load (i32.const 16)) (i32.const 64) (i32.load (i32.const 20)) (i32.load (i32.const 24))
      (i32.load (i32.const 28)) (i32.load (i32.const 32)) (i32.load (i32.const 36))))
    (if (i64.ne (local.get $left) (i64.const 0)) (then
      (i64.store (i32.const 48) (call $finding (i32.const 1) (i32.const 0)))))
    (i32.store (i32.const 0) (i32.const 48))
    (i32.store (i32.const 4) (i32.const 8))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
