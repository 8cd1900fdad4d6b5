;; Grows its memory until it gets no more, writes to every page, and prints how many pages it has.
(module
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
    (local $page i32)
    (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (local.set $page (memory.size))
    (loop $touch
      (local.set $page (i32.sub (local.get $page) (i32.const 1)))
      (i32.store8 offset=128 (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1))
      (br_if $touch (local.get $page)))
    (call $print (i64.extend_i32_u (memory.size)) (i32.const 10))))
