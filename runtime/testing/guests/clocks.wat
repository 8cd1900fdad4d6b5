;; Prints three lines: the wall clock and the monotonic clock, in nanoseconds, and a random number.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)

  ;; Prints a number and `$last`, from the last digit to the first into the 32 bytes that end at 64.
  (func $print (param $number i64) (param $last i32)
    (local $at i32)
    (local.set $at (i32.const 63))
    (i32.store8 (local.get $at) (local.get $last))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $next (i64.ne (local.get $number) (i64.const 0))))
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (i32.sub (i32.const 64) (local.get $at)))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))))

  (func (export "_start")
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
    (call $print (i64.load (i32.const 16)) (i32.const 10))
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 16)))
    (call $print (i64.load (i32.const 16)) (i32.const 10))
    (drop (call $random (i32.const 16) (i32.const 8)))
    (call $print (i64.load (i32.const 16)) (i32.const 10))))
