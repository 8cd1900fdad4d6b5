;; Counts its calls in a global, in its memory, in memory that it grew and in the size of that, and prints the four.
;; An instance of its own for each call makes it "1 1 1 2\n" every time.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $calls (mut i32) (i32.const 0))

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

  ;; Adds one to the number at an address.
  (func $count (param $at i32) (result i64)
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (i32.const 1)))
    (i64.load32_u (local.get $at)))

  (func (export "_start")
    (drop (memory.grow (i32.const 1)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (call $print (i64.extend_i32_u (global.get $calls)) (i32.const 32))
    (call $print (call $count (i32.const 1024)) (i32.const 32))
    (call $print (call $count (i32.const 65536)) (i32.const 32))
    (call $print (i64.extend_i32_u (memory.size)) (i32.const 10))))
