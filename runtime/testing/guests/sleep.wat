;; Sleeps for as many milliseconds as its last argument says, and prints "slept\n".
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "\20\00\00\00" "\06\00\00\00")
  (data (i32.const 32) "slept\n")
  ;; At 64 lies a subscription of 48 bytes: at 16 the monotonic clock, 1; at 24 for how many nanoseconds. The other
  ;; fields are zero, which means a clock and a time from now on.
  (data (i32.const 80) "\01")

  ;; The last argument as a number: its digits end at the zero byte that ends all arguments.
  (func $milliseconds (result i64)
    (local $at i32) (local $number i64) (local $unit i64) (local $digit i32)
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $args (i32.const 1024) (i32.const 65536)))
    (local.set $at (i32.add (i32.const 65534) (i32.load (i32.const 4))))
    (local.set $unit (i64.const 1))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (if (i32.lt_u (local.get $digit) (i32.const 10)) (then
        (local.set $number (i64.add (local.get $number)
          (i64.mul (local.get $unit) (i64.extend_i32_u (local.get $digit)))))
        (local.set $unit (i64.mul (local.get $unit) (i64.const 10)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br $next))))
    (local.get $number))

  (func (export "_start")
    (i64.store (i32.const 88) (i64.mul (call $milliseconds) (i64.const 1000000)))
    ;; The event that comes back takes 32 bytes from 128 on.
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 0)))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 0)))))
