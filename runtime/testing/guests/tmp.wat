;; Writes to a new file in /tmp, 64 KiB at a time, until the host refuses or there are 64 MiB, and prints how many KiB
;; it holds. If the file is there already, it prints "left over\n" instead; if there is no /tmp, "no /tmp\n".
(module
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $dir_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  ;; At 0 and 4 results, at 8 a buffer's address and length, up to 64 a number, from 1024 on a folder's name.
  (memory (export "memory") 2)
  (data (i32.const 80) "file")
  (data (i32.const 96) "left over\n")
  (data (i32.const 112) "no /tmp\n")

  (func $print (param $at i32) (param $length i32)
    (i32.store (i32.const 8) (local.get $at))
    (i32.store (i32.const 12) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))))

  ;; Prints a number and a line feed, from the last digit to the first into the bytes that end at 64.
  (func $print-number (param $number i32)
    (local $at i32)
    (local.set $at (i32.const 63))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $next (local.get $number)))
    (call $print (local.get $at) (i32.sub (i32.const 64) (local.get $at))))

  ;; The folder that the host opened as /tmp, or zero.
  (func $tmp (result i32)
    (local $folder i32)
    (local.set $folder (i32.const 3))
    (loop $next
      (if (i32.eqz (call $prestat (local.get $folder) (i32.const 0))) (then
        (drop (call $dir_name (local.get $folder) (i32.const 1024) (i32.load (i32.const 4))))
        ;; "/tmp" as a number.
        (if (i32.eq (i32.load (i32.const 1024)) (i32.const 0x706d742f)) (then (return (local.get $folder))))
        (local.set $folder (i32.add (local.get $folder) (i32.const 1)))
        (br $next))))
    (i32.const 0))

  ;; Writes to a file until that fails, and gives the count of bytes.
  (func $fill (param $file i32) (result i32)
    (local $bytes i32)
    (loop $next
      (i32.store (i32.const 8) (i32.const 65536))
      (i32.store (i32.const 12) (i32.const 65536))
      (if (i32.eqz (call $fd_write (local.get $file) (i32.const 8) (i32.const 1) (i32.const 0))) (then
        (local.set $bytes (i32.add (local.get $bytes) (i32.load (i32.const 0))))
        (br_if $next (i32.and
          (i32.ne (i32.load (i32.const 0)) (i32.const 0))
          (i32.lt_u (local.get $bytes) (i32.const 0x4000000)))))))
    (local.get $bytes))

  (func (export "_start")
    (local $tmp i32)
    (local.set $tmp (call $tmp))
    (if (i32.eqz (local.get $tmp)) (then (call $print (i32.const 112) (i32.const 8)) (return)))
    ;; 5 is to create it, and to fail if it exists; 64 is the right to write.
    (if (call $path_open (local.get $tmp) (i32.const 0) (i32.const 80) (i32.const 4)
      (i32.const 5) (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 0))
      (then (call $print (i32.const 96) (i32.const 10)) (return)))
    (call $print-number (i32.shr_u (call $fill (i32.load (i32.const 0))) (i32.const 10)))))
