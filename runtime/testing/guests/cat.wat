;; Prints the files that its arguments name, or standard input if there are none. Exits with 1 at the first file that
;; cannot be opened, and prints its name and the error's number to standard error.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $dir_name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; At 0 and 4 results, at 8 a buffer, at 16 an error's number, from 1024 on a folder's name; the
  ;; second page holds the arguments, the third what is read.
  (memory (export "memory") 3)
  (data (i32.const 16) ": error 00\n")

  (func $copy (param $from i32)
    (loop $next
      (i32.store (i32.const 8) (i32.const 131072))
      (i32.store (i32.const 12) (i32.const 65536))
      (if (call $fd_read (local.get $from) (i32.const 8) (i32.const 1) (i32.const 0)) (then
        (call $proc_exit (i32.const 1))))
      (if (i32.load (i32.const 0)) (then
        (call $write (i32.const 1) (i32.const 131072) (i32.load (i32.const 0)))
        (br $next)))))

  (func $write (param $fd i32) (param $at i32) (param $length i32)
    (loop $rest
      (i32.store (i32.const 8) (local.get $at))
      (i32.store (i32.const 12) (local.get $length))
      (if (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 0)) (then
        (call $proc_exit (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 0))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 0))))
      (br_if $rest (local.get $length))))

  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (loop $next
      (if (i32.load8_u (local.get $end)) (then
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next))))
    (i32.sub (local.get $end) (local.get $text)))

  ;; How many bytes of a path the folder's name at 1024 takes, with the slash behind it; zero if it is another folder.
  (func $within (param $path i32) (param $name-length i32) (result i32)
    (local $at i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $name-length)) (then
        (if (i32.ne
          (i32.load8_u offset=1024 (local.get $at))
          (i32.load8_u (i32.add (local.get $path) (local.get $at)))) (then (return (i32.const 0))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))))
    (i32.add (local.get $at)
      (i32.eq (i32.load8_u (i32.add (local.get $path) (local.get $at))) (i32.const 47))))

  ;; Tries each folder that the host opened, from 3 on, and gives the error's number, or zero with the file at 0.
  (func $open (param $path i32) (result i32)
    (local $folder i32) (local $skip i32) (local $errno i32)
    (local.set $errno (i32.const 44)) ;; noent
    (local.set $folder (i32.const 3))
    (loop $next
      (if (i32.eqz (call $prestat (local.get $folder) (i32.const 0))) (then
        (drop (call $dir_name (local.get $folder) (i32.const 1024) (i32.load (i32.const 4))))
        (local.set $skip (call $within (local.get $path) (i32.load (i32.const 4))))
        (if (local.get $skip) (then
          (local.set $errno (call $path_open
            (local.get $folder) (i32.const 1)
            (i32.add (local.get $path) (local.get $skip))
            (call $length (i32.add (local.get $path) (local.get $skip)))
            (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)))
          (if (i32.eqz (local.get $errno)) (then (return (i32.const 0))))))
        (local.set $folder (i32.add (local.get $folder) (i32.const 1)))
        (br $next))))
    (local.get $errno))

  (func $print-file (param $path i32)
    (local $errno i32)
    (local.set $errno (call $open (local.get $path)))
    (if (i32.eqz (local.get $errno)) (then
      (call $copy (i32.load (i32.const 0)))
      (return)))
    (i32.store8 (i32.const 24) (i32.add (i32.const 48) (i32.div_u (local.get $errno) (i32.const 10))))
    (i32.store8 (i32.const 25) (i32.add (i32.const 48) (i32.rem_u (local.get $errno) (i32.const 10))))
    (call $write (i32.const 2) (local.get $path) (call $length (local.get $path)))
    (call $write (i32.const 2) (i32.const 16) (i32.const 11))
    (call $proc_exit (i32.const 1)))

  (func (export "_start")
    (local $count i32) (local $at i32)
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (local.set $count (i32.load (i32.const 0)))
    (drop (call $args (i32.const 65536) (i32.add (i32.const 65536) (i32.mul (local.get $count) (i32.const 4)))))
    (if (i32.le_u (local.get $count) (i32.const 1)) (then (call $copy (i32.const 0)) (return)))
    (local.set $at (i32.const 1))
    (loop $next
      (call $print-file (i32.load offset=65536 (i32.mul (local.get $at) (i32.const 4))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $count))))))
